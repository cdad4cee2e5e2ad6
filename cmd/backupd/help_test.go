package main

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// TestHelp: the help of a command shows its own flags, and names the topics of the others.
// No flag is in neither, and no command that talks to no etcd speaks of reaching one.
func TestHelp(t *testing.T) {
	topic := map[string]string{}
	for _, name := range []string{"etcd", "s3"} {
		code, stdout, stderr := backupd("help", name)
		if code != exitOK || stderr != "" {
			t.Fatalf("%s: exit code %d\n%s", name, code, stderr)
		}
		topic[name] = stdout
	}
	connection, bucket := 0, 0
	everyCommand(func(cmd *cobra.Command) {
		args := strings.Fields(cmd.CommandPath())[1:]
		_, help, _ := backupd(append(args, "--help")...)
		if _, same, _ := backupd(append([]string{"help"}, args...)...); same != help {
			t.Errorf("help %v is\n%s\nand --help\n%s", args, same, help)
		}
		shows := func(text string, f *pflag.Flag) bool { return strings.Contains(text, " --"+f.Name+" ") }
		for _, f := range flagsOf(cmd) {
			_, own, _ := strings.Cut(help, "\nFlags:\n")
			switch {
			case f.Hidden || f.Name == "help":
			case strings.HasPrefix(withoutSide(f.Name), "s3-"):
				bucket++
				each := &pflag.Flag{Name: withoutSide(f.Name)}
				if shows(own, f) || !strings.Contains(own, "backupd help s3 ") || !shows(topic["s3"], each) {
					t.Errorf("--%s of %s:\n%s", f.Name, cmd.CommandPath(), help)
				}
			case hiddenIn(cmd, f):
				if shows(own, f) || strings.Contains(own, "backupd help etcd") {
					t.Errorf("--%s of %s:\n%s", f.Name, cmd.CommandPath(), help)
				}
			case isConnection(f):
				connection++
				if shows(own, f) || !strings.Contains(own, "backupd help etcd ") || !shows(topic["etcd"], f) {
					t.Errorf("--%s of %s:\n%s", f.Name, cmd.CommandPath(), help)
				}
			case !shows(own, f):
				t.Errorf("--%s of %s is not shown:\n%s", f.Name, cmd.CommandPath(), help)
			}
		}
	})
	if connection == 0 || bucket == 0 {
		t.Errorf("%d flags of connections and %d of buckets were seen", connection, bucket)
	}
	for _, args := range [][]string{{"help", "lst"}, {"lst"}} {
		if code, stdout, stderr := backupd(args...); code != exitUsage || stdout != "" ||
			!strings.Contains(stderr, "unknown command \"lst\"") {
			t.Errorf("%v: exit code %d\n%s%s", args, code, stdout, stderr)
		}
	}
	_, stdout, _ := backupd("--help")
	if strings.Contains(stdout, "--endpoints ") || !strings.Contains(stdout, "backupd s3 ") {
		t.Errorf("got\n%s", stdout)
	}
}
