package container_test

import (
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/members/container"
	"github.com/etcd-backupd/backupd/internal/members/shell"
)

// show writes a start: UNIT DIR USER: ETCD_X=y word:line | mounts.
func show(starts []members.Start) string {
	var out []string
	for _, s := range starts {
		line := s.Unit + " " + s.Dir.Text + " " + s.User.Text + ":"
		for _, v := range s.Env {
			if strings.HasPrefix(v.Name, "ETCD_") {
				line += fmt.Sprintf(" %s=%s:%d", v.Name, v.Value.Text, v.Value.At.Line)
			}
		}
		for _, w := range s.Args {
			line += fmt.Sprintf(" %s:%d", w.Text, w.At.Line)
		}
		for _, m := range s.Mounts {
			line += fmt.Sprintf(" | %s%s -> %s", m.Host.Text, m.Volume, m.Inside.Text)
			if m.ReadOnly {
				line += " ro"
			}
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}

func reader(files map[string]string) func(string) ([]byte, error) {
	return func(name string) ([]byte, error) {
		if text, ok := files[name]; ok {
			return []byte(text), nil
		}
		return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
}

func TestRun(t *testing.T) {
	files := map[string]string{"/srv/etcd.env": "# x\nETCD_NAME=file\nETCD_DATA_DIR=\"/q\"\nOTHER\n"}
	for _, c := range []struct{ line, want string }{
		{
			"docker run -d --name c1 -v /srv/e1:/data -p 2380:2380 img:1 \\\n etcd --name m1 --data-dir=/data",
			"c1  : --name:2 m1:2 --data-dir=/data:2 | /srv/e1 -> /data",
		},
		{
			"docker run -itdv vol:/data:ro -eETCD_NAME=m1 -u 1000:1001 -w=/w -h box img /usr/local/bin/etcd",
			" /w 1000: ETCD_NAME=m1:1 | vol -> /data ro",
		},
		{
			"cd /srv; docker run --env ETCD_NAME=e --env-file etcd.env -v ./d:/data img etcd",
			"  : ETCD_DATA_DIR=\"/q\":3 ETCD_NAME=e:1 | /srv/d -> /data",
		},
		{
			"podman run --rm --net=host --mount type=bind,source=/a,target=/b,readonly --mount type=volume,src=v,dst=/c " +
				"--entrypoint etcd img --name x",
			"  : --name:1 x:1 | /a -> /b ro | v -> /c",
		},
		{"ETCD_NAME=n docker run -e ETCD_NAME img etcd", "  : ETCD_NAME=n:1"},
		{"docker run -h box img sh -c 'exec etcd --name $(hostname) --data-dir /d'", "  : --name:1 box:1 --data-dir:1 /d:1"},
		{"docker run -u etcd img etcd --name x", "  : --name:1 x:1"},
		{"docker run -v ./d:/data img etcd",
			"f:1: ./d is relative to a folder that is not known"},
		{"docker run -e ETCD_NAME img etcd",
			"f:1: the value of ETCD_NAME is that of whoever runs the line"},
		{"docker run --volumes-from x img etcd",
			"f:1: the mounts are those of another container, x"},
		{"docker run --strange x img etcd",
			"f:1: the flag --strange of docker run is not known here"},
		{"docker run -d etcd:v1 --name x",
			"f:1: the ENTRYPOINT of the image etcd:v1 is not known, and with it the flags that it " +
				"gives to etcd"},
		{"docker run -d img /start.sh etcd",
			"f:1: /start.sh is a program of the image: what it gives to etcd is not known"},
		{"docker run img sh -c 'etcd --name $(hostname)'",
			"f:1: hostname depends on the host, whose name is not known"},
		{"docker run -v ./d:/data nginx", ""},
		{"docker -H tcp://node2:2375 run img etcd", "f:1: -H: the container is on another host, or may be"},
		{"docker -Hssh://node2 run img etcd", "f:1: -H: the container is on another host, or may be"},
		{"docker --host=ssh://node2 run img etcd", "f:1: --host: the container is on another host, or may be"},
		{"docker -H unix:///run/docker.sock run img etcd --name x", "  : --name:1 x:1"},
		{"docker --context prod run img etcd", "f:1: --context prod: the container is on another host, or may be"},
		{"docker -c default run img etcd --name x", "  : --name:1 x:1"},
		{"podman --remote run img etcd", "f:1: --remote: the container is on another host, or may be"},
		{"docker -H tcp://node2:2375 run nginx", ""},
		{"export DOCKER_HOST=ssh://root@node2\ndocker run img etcd",
			"f:1: DOCKER_HOST: the container is on another host, or may be"},
		{"DOCKER_CONTEXT=x docker run img etcd", "f:1: DOCKER_CONTEXT: the container is on another host, or may be"},
		{"DOCKER_HOST= docker run img etcd --name x", "  : --name:1 x:1"},
		{"docker run img etcdctl member list", ""},
		{"docker ps", ""},
	} {
		commands, err := shell.Commands(members.Word{Text: c.line, At: members.Position{File: "f", Line: 1}}, nil,
			shell.Options{})
		if err != nil {
			t.Fatal(err)
		}
		last := commands[len(commands)-1]
		start, err := container.Run(last.Words, last.Env, last.Dir.Text, members.ReadOptions{ReadFile: reader(files)}, nil)
		got := ""
		if start != nil {
			got = show([]members.Start{*start})
		}
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s\ngot  %s\nwant %s", c.line, got, c.want)
		}
	}
}

func TestRead_Dockerfile(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"FROM a AS b\nRUN <<X\nENTRYPOINT no\nX\nFROM alpine\nENV A=1 ETCD_NAME=m1\nWORKDIR /w\nUSER 10:11\n" +
			"ENTRYPOINT [\"etcd\", \\\n  \"--data-dir\", \"/data\"]\nCMD [\"--name\", \"x\"]",
			" /w 10: ETCD_NAME=m1:6 --data-dir:9 /data:9 --name:11 x:11"},
		{"FROM scratch\nENV D=/d\nENV ETCD_DATA_DIR $D/e\nCMD etcd --name a", "  : ETCD_DATA_DIR=/d/e:3 --name:4 a:4"},
		{"FROM scratch AS one\nENTRYPOINT [\"/etcd\"]\nFROM one\nCMD [\"--name=b\"]", "  : --name=b:4"},
		{"FROM scratch\nARG N=1\nENV ETCD_NAME=$N\nCMD etcd",
			"D:3: $N can be given when the image is built, or is the base image's"},
		{"FROM scratch\nCMD [\"sleep\"]", ""},
	} {
		if !container.Recognize("D", []byte(c.text)) {
			t.Errorf("%q is not recognised", c.text)
		}
		starts, err := container.Read("D", []byte(c.text), container.Options{})
		got := show(starts)
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s\ngot  %s\nwant %s", c.text, got, c.want)
		}
	}
}

const three = `x-common: &common
  image: quay.io/coreos/etcd:v3.5.9
  restart: always
services:
  one:
    <<: *common
    container_name: etcd-one
    command: etcd --name ${PREFIX:-m}1 --data-dir "/data" --initial-cluster ${ALL}
    volumes: [./one:/data]
    ports: ["2380:2380"]
  two:
    <<: *common
    entrypoint: [/usr/local/bin/etcd]
    command:
      - --name=m2
      - --data-dir=/data/$$x
    environment:
      ETCD_QUOTA_BACKEND_BYTES: 8000000000
      ETCD_ENABLE_V2: "true"
    env_file: two.env
    user: "1000"
    working_dir: /w
    volumes:
      - type: bind
        source: /srv/two
        target: /data
        read_only: true
      - named:/other
      - pinned:/wal
  web:
    image: nginx
    volumes: ["~/x:/y"]
    command: ${NOTHING}
volumes:
  named:
  pinned:
    driver_opts: {type: none, o: bind, device: /mnt/wal}
`

func TestRead_Compose(t *testing.T) {
	files := map[string]string{
		"/c/.env":    "PREFIX=n\nALL='n1=http://a:2380,m2=http://b:2381'\n",
		"/c/two.env": "ETCD_NAME=${PREFIX}x\nETCD_QUOTA_BACKEND_BYTES=1\n",
	}
	if !container.Recognize("/c/c.yml", []byte(three)) {
		t.Error("it is not recognised")
	}
	starts, err := container.Read("/c/c.yml", []byte(three), container.Options{ReadFile: reader(files)})
	if err != nil {
		t.Fatal(err)
	}
	want := `etcd-one  : --name:8 n1:8 --data-dir:8 /data:8 --initial-cluster:8 n1=http://a:2380,m2=http://b:2381:8` +
		` | /c/one -> /data
two /w 1000: ETCD_ENABLE_V2=true:19 ETCD_NAME=nx:1 ETCD_QUOTA_BACKEND_BYTES=8000000000:18` +
		` --name=m2:15 --data-dir=/data/$x:16` +
		` | /srv/two -> /data ro | named -> /other | /mnt/wal -> /wal`
	if got := show(starts); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for _, c := range []struct{ from, to, want string }{
		{"${ALL}", "${ALLE}",
			"/c/c.yml:8: ${ALLE} is not in /c/.env: its value is that of whoever runs compose"},
		{"two.env", "three.env",
			"/c/c.yml:20: /c/three.env: file does not exist"},
		{"./one:/data", "~/one:/data",
			"/c/c.yml:9: ~/one depends on who runs it: ~ is a home directory"},
		{"container_name: etcd-one", "extends: x",
			"/c/c.yml:7: extends is not followed"},
		{"etcd --name ${PREFIX:-m}1", "--name x",
			"/c/c.yml:2: the ENTRYPOINT of the image quay.io/coreos/etcd:v3.5.9 is not " +
				"known, and with it the flags that it gives to etcd"},
		{"image: quay.io/coreos/etcd:v3.5.9", "build: .",
			"/c/c.yml:2: /c/Dockerfile: file does not exist"},
	} {
		text := strings.Replace(three, c.from, c.to, 1)
		starts, err := container.Read("/c/c.yml", []byte(text), container.Options{ReadFile: reader(files)})
		if err == nil || err.Error() != c.want {
			t.Errorf("%s: got %s, %v\nwant %s", c.to, show(starts), err, c.want)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(three)
	f.Add("FROM a\nENV A=1\nENTRYPOINT [\"etcd\"]\nCMD etcd --name $A")
	f.Add("services:\n  a:\n    image: etcd\n    command: [etcd, --name, a]\n    volumes: [/a:/b, {type: bind}]\n")
	f.Fuzz(func(t *testing.T, text string) {
		starts, err := container.Read("/c/f", []byte(text), container.Options{ReadFile: reader(nil)})
		for _, s := range starts {
			for _, m := range s.Mounts {
				if m.Host.Text != "" && m.Host.Text[0] != '/' {
					t.Errorf("%q: the mount %+v is relative", text, m)
				}
			}
		}
		if err == nil && len(starts) > 0 && !container.Recognize("/c/f", []byte(text)) {
			t.Errorf("%q is read and not recognised", text)
		}
	})
}

// TestCompose_Beside: compose takes other files by itself, and what they change is not in the file.
func TestCompose_Beside(t *testing.T) {
	const base = "services:\n  e:\n    image: etcd\n    command: etcd --name m1 --data-dir /d\n    volumes: ['/a:/d']\n"
	const over = "services:\n  e:\n    volumes: ['/b:/d']\n"
	const ov, old = "/c/compose.override.yaml", "/c/docker-compose.override.yml"
	files := func(name, text string) map[string]string { return map[string]string{name: text} }
	for name, c := range map[string]struct {
		file, text string
		more       map[string]string
		want       string // of the error; empty: it is read
	}{
		"alone":          {"/c/compose.yaml", base, nil, ""},
		"override":       {"/c/compose.yaml", base, files(ov, over), ov},
		"older override": {"/c/docker-compose.yml", base, files(old, over), old},
		"of another service": {"/c/compose.yaml", base, map[string]string{
			"/c/compose.override.yaml": strings.Replace(over, "e:", "f:", 1)}, ""},
		"of volumes": {"/c/compose.yaml", base, map[string]string{
			"/c/compose.override.yaml": "volumes: {v: {name: w}}\n"}, "/c/compose.override.yaml"},
		"not understood":    {"/c/compose.yaml", base, files(ov, "\t:"), ov},
		"a name of its own": {"/c/etcd.yaml", base, files(ov, over), ""},
		"itself":            {"/c/compose.override.yaml", base, nil, "an addition to another file"},
		"newer name":        {"/c/docker-compose.yml", base, map[string]string{"/c/compose.yaml": base}, "/c/compose.yaml"},
		"older name":        {"/c/compose.yaml", base, map[string]string{"/c/docker-compose.yml": base}, ""},
		"named":             {"/c/etcd.yaml", base, map[string]string{"/c/.env": "COMPOSE_FILE=etcd.yaml\n"}, ""},
		"named with more":   {"/c/etcd.yaml", base, files("/c/.env", "COMPOSE_FILE=etcd.yaml:x.yaml\n"), "/c/.env"},
		"another is named":  {"/c/compose.yaml", base, map[string]string{"/c/.env": "COMPOSE_FILE=x.yaml\n"}, "/c/.env"},
		"copies":            {"/c/etcd.yaml", base + "    deploy: {replicas: 3}\n", nil, "etcd.yaml:6: the service has 3"},
		"another host":      {"/c/etcd.yaml", base, files("/c/.env", "DOCKER_HOST=ssh://x\n"), "/c/.env: DOCKER_HOST"},
		"one copy":          {"/c/etcd.yaml", base + "    deploy: {replicas: 1}\n", nil, ""},
		"scaled":            {"/c/etcd.yaml", base + "    scale: 0\n", nil, "etcd.yaml:6: the service has 0"},
		"profiles":          {"/c/etcd.yaml", base + "    profiles: [db]\n", nil, ""},
	} {
		starts, err := container.Compose(c.file, []byte(c.text), members.ReadOptions{ReadFile: reader(c.more)})
		if c.want == "" && (err != nil || len(starts) != 1) ||
			c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
		if name == "profiles" && !strings.Contains(fmt.Sprint(starts[0].Notes), "etcd.yaml:6: compose starts") {
			t.Errorf("%s: notes %v", name, starts[0].Notes)
		}
	}
}
