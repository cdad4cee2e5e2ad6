package container_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/dotenv"
	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"

	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/members/container"
)

const cluster = `services:
  etcd-1:
    image: quay.io/coreos/etcd:${VERSION:-v3.5.9}
    container_name: "etcd-1"
    command: etcd --name $NAME --data-dir=/data --listen-peer-urls 'http://0.0.0.0:2380'
    environment:
      - ETCD_INITIAL_CLUSTER=${NAME}=http://10.0.0.1:2380,b=http://10.0.0.1:2381
      - ETCD_INITIAL_CLUSTER_TOKEN=k8s cluster
    env_file:
      - etcd.env
    volumes:
      - ./data/one:/data
    ports:
      - 2380:2380
  etcd-2:
    image: "etcd"
    entrypoint: ["/usr/local/bin/etcd", "--name=b"]
    command: >-
      --data-dir /data/$${x}
      --wal-dir "/wal dir"
    environment:
      ETCD_QUOTA_BACKEND_BYTES: 8000000000
      ETCD_ENABLE_V2: "true"
    working_dir: /w
    user: "1000:1000"
    volumes:
      - type: bind
        source: ../two
        target: /data
      - wal:/wal dir:rw
volumes:
  wal: {}
`

const (
	dotEnv  = "NAME=a\n# no\nexport VERSION='v3.5.9' # yes\n"
	etcdEnv = "ETCD_HEARTBEAT_INTERVAL=100\nETCD_DATA_DIR=\"/q/$NAME\"\n"
)

// mutations returns the text with one line changed, in many ways.
func mutations(text string) (out []string) {
	lines := strings.SplitAfter(text, "\n")
	with := func(i int, line ...string) {
		out = append(out, strings.Join(slices.Concat(lines[:i], line, lines[i+1:]), ""))
	}
	for i, l := range lines {
		end := strings.TrimSuffix(l, "\n")
		with(i)
		with(i, l, l)
		with(i, end+"\r\n")
		with(i, "#"+l)
		with(i, " "+l)
		with(i, strings.TrimPrefix(l, "  "))
		with(i, end+"\\\n")
		for _, r := range [][2]string{
			{`"`, ""}, {`"`, "'"}, {"'", `"`}, {"$", ""}, {"$", "$$"}, {"{", ""}, {"}", ""}, {"etcd-1", "etcd-2"},
			{"- ", ""},
			{"NAME", "NMAE"}, {"=", ": "}, {": ", "="}, {":", ""}, {" ", ""}, {"--", "-"}, {"/", "//"},
			{":-", "-"}, {":-", ":+"},
			{"./", "~/"}, {"./", ""}, {"data", "da ta"}, {">-", "|"}, {">-", ""}, {"[", "- ["},
			{"true", "yes"}, {"bind", "volume"},
			{"=a", "=a b"}, {"a", "${NAME-d}"}, {"100", "${NONE:-1}"},
		} {
			for from := 0; ; {
				j := strings.Index(l[from:], r[0])
				if j < 0 {
					break
				}
				with(i, l[:from+j]+r[1]+l[from+j+len(r[0]):])
				from += j + len(r[0])
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// TestRead_Mutated: whatever happens to a line of a compose file or of its variables, nothing
// is taken from it that compose itself would not give to the containers.
func TestRead_Mutated(t *testing.T) { mutate(t, 10) }

func mutate(t *testing.T, every int) {
	dir := filepath.Join(t.TempDir(), "project")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	files := map[string]string{"compose.yml": cluster, ".env": dotEnv, "etcd.env": etcdEnv}
	said, all, n := 0, 0, 0
	for _, name := range slices.Sorted(maps.Keys(files)) {
		for i, m := range append([]string{files[name]}, mutations(files[name])...) {
			if n++; every > 1 && i > 0 && n%every != 1 {
				continue
			}
			all++
			now := maps.Clone(files)
			now[name] = m
			for name, text := range now {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			starts, err := container.Read(filepath.Join(dir, "compose.yml"), []byte(now["compose.yml"]),
				container.Options{ReadFile: os.ReadFile})
			if err != nil {
				if i == 0 {
					t.Error(err)
				}
				continue
			}
			theirs, err := composed(dir, now["compose.yml"])
			if err != nil {
				continue // compose starts nothing
			}
			said++
			for _, s := range starts {
				if got := ours(s); !slices.Contains(theirs, got) {
					t.Errorf("%s:\n%s\n--- compose gives\n%s\n--- we say\n%s", name, m, strings.Join(theirs, "\n"), got)
				}
			}
		}
	}
	if said < all/5 {
		t.Errorf("%d of %d files are understood: this compares too little", said, all)
	}
	t.Logf("%d of %d files are understood", said, all)
}

// composed is what compose itself makes of a file, a text for each container.
func composed(dir, text string) (out []string, err error) {
	env, err := dotenv.Read(filepath.Join(dir, ".env"))
	if err != nil {
		return nil, err
	}
	project, err := loader.LoadWithContext(context.Background(), types.ConfigDetails{
		WorkingDir: dir, Environment: env,
		ConfigFiles: []types.ConfigFile{{Filename: filepath.Join(dir, "compose.yml"), Content: []byte(text)}},
	}, func(o *loader.Options) { o.SetProjectName("p", true) })
	if err != nil {
		return nil, err
	}
	if project, err = project.WithServicesEnvironmentResolved(true); err != nil {
		return nil, err
	}
	for _, s := range project.Services {
		words := slices.Concat(s.Entrypoint, s.Command)
		if len(words) > 0 {
			words = words[1:]
		}
		vars := map[string]string{}
		for name, value := range s.Environment {
			if value != nil {
				vars[name] = *value
			}
		}
		var mounts []string
		for _, v := range s.Volumes {
			source := v.Source
			if v.Type == types.VolumeTypeVolume {
				source = "volume " + source
			}
			mounts = append(mounts, fmt.Sprint(source, " ", filepath.Clean(v.Target), " ", v.ReadOnly))
		}
		user, _, _ := strings.Cut(s.User, ":")
		out = append(out, describe(words, vars, mounts, s.WorkingDir, user))
	}
	return out, nil
}

func ours(s members.Start) string {
	var words, mounts []string
	vars := map[string]string{}
	for _, w := range s.Args {
		words = append(words, w.Text)
	}
	for _, v := range s.Env {
		vars[v.Name] = v.Value.Text
	}
	for _, m := range s.Mounts {
		source := m.Host.Text
		if source == "" {
			source = "volume " + m.Volume
		}
		mounts = append(mounts, fmt.Sprint(source, " ", filepath.Clean(m.Inside.Text), " ", m.ReadOnly))
	}
	return describe(words, vars, mounts, s.Dir.Text, s.User.Text)
}

func describe(words []string, vars map[string]string, mounts []string, dir, user string) string {
	slices.Sort(mounts)
	return fmt.Sprintf("%q %q %q %q %q", words, vars, mounts, dir, user)
}
