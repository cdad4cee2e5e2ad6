package main

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// everyCommand calls visit with each command that does something.
func everyCommand(visit func(cmd *cobra.Command)) {
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Runnable() {
			visit(cmd)
		}
		for _, c := range cmd.Commands() {
			walk(c)
		}
	}
	walk(newRootCommand(&app{}))
}

func variable(name, value string) func(string) (string, bool) {
	return func(n string) (string, bool) { return value, n == name }
}

// TestVariables: no variable says what a command does. One that is set all the same is
// refused: to ignore BACKUPD_DRY_RUN would be as bad as to heed it.
func TestVariables(t *testing.T) {
	given := map[string]bool{}
	everyCommand(func(c *cobra.Command) {
		cmd := c
		if err := cmd.ParseFlags(nil); err != nil {
			t.Fatal(err)
		}
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Name == "help" || cmd.InheritedFlags().Lookup(f.Name) != nil {
				return
			}
			name := "BACKUPD_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
			_, err := applyEnvironment(cmd, variable(name, "true"))
			refused := err != nil && strings.Contains(err.Error(), "only the command line may give --"+f.Name)
			if refused && f.Changed || refused != (exitCode(err) == exitUsage && !mayBeVariable(f)) {
				t.Errorf("%s, %s: %v", cmd.CommandPath(), name, err)
			}
			if !refused {
				given[f.Name] = true
			}
		})
	})
	for name := range given {
		if strings.HasPrefix(name, "s3-") || name == "file-min-free" {
			delete(given, name)
		}
	}
	// A flag that is added here says where something is, and cannot change what is proven.
	want := []string{
		"cacert", "cert", "cluster", "compression", "config", "identity", "key", "max-rate", "metrics-file",
		"recipient", "recipients-file", "repo", "repo-id", "server", "spool", "spool-min-free", "token-file",
	}
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(given))); diff != "" {
		t.Errorf("flags that a variable may give: -want +got\n%s", diff)
	}
}

func TestVariables_ThatWeaken(t *testing.T) {
	folder := " --repo file://" + t.TempDir()
	for env, line := range map[string]string{
		"STORED_ONLY": "verify latest" + folder, "ALL": "verify latest" + folder,
		"HASH_CHECK": "backup --cluster c" + folder, "ONCE": "backup --config c.yaml", "INIT": "backup --cluster c" + folder,
		"ALLOW_NEAR_QUOTA": "snapshot save s.db", "DRY_RUN": "prune --cluster c" + folder,
		"KEEP_LAST": "prune --cluster c" + folder, "SKIP_HASH_CHECK": "snapshot restore s.db",
		"BUMP_REVISION": "snapshot restore s.db", "WAL_DIR": "snapshot restore s.db",
		"ALLOW_SUSPECT":            "restore latest" + folder,
		"INSECURE_SKIP_TLS_VERIFY": "snapshot save s.db", "INSECURE_TRANSPORT": "backup --cluster c" + folder,
		"INSECURE_DISCOVERY": "snapshot save s.db",
		"FORCE_PINNED":       "rm 20200102T000000Z-r1-aaaaaa" + folder, "LONG": "list" + folder,
	} {
		t.Run(env, func(t *testing.T) {
			t.Setenv("BACKUPD_"+env, "true")
			code, stdout, stderr := backupd(strings.Fields(line)...)
			if code != exitUsage || stdout != "" || !strings.Contains(stderr, "unset BACKUPD_"+env) {
				t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
			}
		})
	}
}

// TestVariables_Unverified: etcdctl's variable counts as it does for etcdctl, and not silently.
func TestVariables_Unverified(t *testing.T) {
	const name = "ETCDCTL_INSECURE_SKIP_TLS_VERIFY"
	for _, tt := range []struct {
		line, value string
		warned      bool
	}{
		{"snapshot save", "true", true}, {"snapshot save", "false", false}, {"version", "true", false},
	} {
		root := newRootCommand(&app{})
		cmd, _, err := root.Find(strings.Fields(tt.line))
		if err == nil {
			err = cmd.ParseFlags(nil)
		}
		if err != nil {
			t.Fatal(err)
		}
		warnings, err := applyEnvironment(cmd, variable(name, tt.value))
		warned := len(warnings) == 1 && strings.HasPrefix(warnings[0], name+" is set: no server's certificate is verified")
		if err != nil || warned != tt.warned || !warned && len(warnings) > 0 {
			t.Errorf("%s with %s: warnings %q, error %v", tt.line, tt.value, warnings, err)
		}
	}
}

// TestEmpty: an empty value is not the same as none.
func TestEmpty(t *testing.T) {
	everyCommand(func(cmd *cobra.Command) {
		if err := cmd.ParseFlags(nil); err != nil {
			t.Fatal(err)
		}
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			name := strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
			vars := []string{"BACKUPD_" + name}
			if f.Annotations[fromEtcdctl] != nil {
				vars = append(vars, "ETCDCTL_"+name)
			}
			for _, v := range vars {
				_, err := applyEnvironment(cmd, variable(v, ""))
				if refused := exitCode(err) == exitUsage; refused == (hiddenIn(cmd, f) || f.Name == "help") {
					t.Errorf("%s, %s: %v", cmd.CommandPath(), v, err)
				}
			}
		})
	})
	everyCommand(func(c *cobra.Command) {
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			root := newRootCommand(&app{})
			cmd, _, _ := root.Find(strings.Fields(c.CommandPath())[1:])
			err := cmd.ParseFlags([]string{"--" + f.Name + "="})
			if err == nil {
				_, err = applyEnvironment(cmd, variable("", ""))
			}
			if err == nil {
				t.Errorf("%s --%s='' is accepted", cmd.CommandPath(), f.Name)
			}
		})
	})
	for _, line := range []string{
		"snapshot restore s.db --data-dir=", "snapshot restore s.db --wal-dir=", "snapshot restore s.db --chown=",
		"snapshot restore s.db --initial-cluster-token=", "snapshot save s.db --endpoints=a:1,", "snapshot save s.db --user=",
		"backup --cluster c --repo file:///x --recipient=", "snapshot status |", "snapshot save |", "snapshot restore |",
		"config check |",
	} {
		args := strings.Fields(line)
		if args[len(args)-1] == "|" {
			args[len(args)-1] = ""
		}
		code, stdout, stderr := backupd(args...)
		if code != exitUsage || stdout != "" || !strings.Contains(stderr, "empty") {
			t.Errorf("%s: exit code %d\n%s%s", line, code, stdout, stderr)
		}
	}
}

// TestBlank: spaces alone are no folder, no name and no address.
func TestBlank(t *testing.T) {
	for _, args := range [][]string{
		{"snapshot", "restore", "s.db", "--data-dir", " "}, {"snapshot", "restore", "s.db", "--name", "\t"},
		{"snapshot", "save", " "}, {"snapshot", "save", "s.db", "--endpoints", "a:1, "}, {"list", "--repo", "  "},
	} {
		code, stdout, stderr := backupd(args...)
		if code != exitUsage || stdout != "" || !strings.Contains(stderr, "is empty") {
			t.Errorf("%q: exit code %d\n%s%s", args, code, stdout, stderr)
		}
	}
	t.Setenv("BACKUPD_REPO", " ")
	if code, _, stderr := backupd("list"); code != exitUsage || !strings.Contains(stderr, "BACKUPD_REPO is empty") {
		t.Errorf("exit code %d\n%s", code, stderr)
	}
	t.Setenv("BACKUPD_REPO", "")
	cmd, _, err := newRootCommand(&app{}).Find([]string{"snapshot", "save"})
	if err == nil {
		err = cmd.ParseFlags([]string{"--password", " "})
	}
	if err == nil {
		_, err = applyEnvironment(cmd, variable("", ""))
	}
	if err != nil {
		t.Errorf("a password of spaces: %v", err)
	}
}

// TestFlagBeatsVariable: also one that another flag would give way to.
func TestFlagBeatsVariable(t *testing.T) {
	for _, tt := range []struct{ line, env, want string }{
		{"snapshot save --endpoints=a:1", "ETCDCTL_DISCOVERY_SRV=x", "endpoints=[a:1] discovery-srv="},
		{"snapshot save --endpoints=a:1", "BACKUPD_DISCOVERY_SRV=x", "discovery-srv="},
		{"snapshot save", "ETCDCTL_DISCOVERY_SRV=x ETCDCTL_ENDPOINTS=a:1", "endpoints=[a:1] discovery-srv=x"},
		{"snapshot save", "ETCDCTL_DISCOVERY_SRV=x BACKUPD_ENDPOINTS=a:1", "endpoints=[a:1] discovery-srv="},
		{"snapshot save --discovery-srv=y", "ETCDCTL_ENDPOINTS=a:1", "endpoints=[127.0.0.1:2379] discovery-srv=y"},
		{"snapshot save --endpoints=a:1", "BACKUPD_ENDPOINTS=b:1", "endpoints=[a:1]"},
		{"snapshot save --user=u:p", "ETCDCTL_PASSWORD=q", "user=u:p password="},
		{"snapshot save --user=u", "ETCDCTL_PASSWORD=q", "user=u password=q"},
		{"snapshot save --password=p", "ETCDCTL_USER=u:q", "user=u password=p"},
		{"snapshot save", "ETCDCTL_USER=u:q ETCDCTL_PASSWORD=p", "user=u:q password=p"},
		{"snapshot save --user=u:p", "ETCDCTL_AUTH_JWT_TOKEN=t", "user=u:p auth-jwt-token="},
		{"snapshot save --auth-jwt-token=t", "ETCDCTL_USER=u ETCDCTL_PASSWORD=p", "auth-jwt-token=t user= password="},
		{"snapshot save --cacert=ca", "ETCDCTL_INSECURE_SKIP_TLS_VERIFY=true", "cacert=ca insecure-skip-tls-verify=false"},
		{"snapshot save", "ETCDCTL_INSECURE_SKIP_TLS_VERIFY=true ETCDCTL_CACERT=ca", "insecure-skip-tls-verify=true"},
		{"backup --recipient=r", "BACKUPD_RECIPIENTS_FILE=f", "recipient=[r] recipients-file=[]"},
		{"backup --recipients-file=f", "BACKUPD_RECIPIENT=r", "recipient=[] recipients-file=[f]"},
		{"backup --recipient=r", "BACKUPD_RECIPIENT=s", "recipient=[r]"},
		{"backup", "BACKUPD_RECIPIENTS_FILE=f BACKUPD_RECIPIENT=r", "recipient=[r] recipients-file=[f]"},
		{"backup --repo=file:///x", "BACKUPD_CONFIG=c", "repo=file:///x config="},
		{"backup --config=c", "BACKUPD_REPO=file:///x", "config=c"},
		{"list --s3-sse=AES256", "BACKUPD_S3_SSE_C_KEY_FILE=k", "s3-sse=AES256 s3-sse-c-key-file="},
		{"verify --identity=i", "BACKUPD_IDENTITY=j", "identity=[i]"},
	} {
		cmd, args, err := newRootCommand(&app{}).Find(strings.Fields(tt.line))
		if err == nil {
			err = cmd.ParseFlags(args)
		}
		env := map[string]string{}
		for _, kv := range strings.Fields(tt.env) {
			name, value, _ := strings.Cut(kv, "=")
			env[name] = value
		}
		if err == nil {
			_, err = applyEnvironment(cmd, func(name string) (string, bool) { v, ok := env[name]; return v, ok })
		}
		for _, want := range strings.Fields(tt.want) {
			name, value, _ := strings.Cut(want, "=")
			if got := cmd.Flags().Lookup(name).Value.String(); got != value || err != nil {
				t.Errorf("%s %s: --%s is %q, %v", tt.env, tt.line, name, got, err)
			}
		}
	}
}
