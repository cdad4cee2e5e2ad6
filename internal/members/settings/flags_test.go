package settings

import (
	"maps"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

// example is a value of each kind, in the form that only this kind takes.
var example = map[kind][]string{
	text: {"x"}, boolean: nil, duration: {"1s"}, signed: {"-1"}, unsigned: {"1"}, unsigned32: {"1"},
	urls: {"http://127.0.0.1:1"}, retention: {"1"}, ignored: nil,
}

// TestFlags compares the table with the servers: each knows the flags that the table says it
// knows, takes or does not take a value after them, and has no other.
func TestFlags(t *testing.T) {
	inHelp := regexp.MustCompile(`(?m)^\s+--([a-z0-9-]+)`)
	for minor, version := range map[int]string{5: "3.5", 6: "3.6", 7: "3.7"} {
		etcd := testserver.Binary(t, version, "etcd")
		output := func(args ...string) string {
			out, _ := exec.Command(etcd, args...).CombinedOutput() // it may end with any status
			return string(out)
		}
		help := output("--help")
		for _, m := range inHelp.FindAllStringSubmatch(help, -1) {
			if _, ok := flags[m[1]]; !ok {
				t.Errorf("%s has the flag %s, and the table has not", version, m[1])
			}
		}
		var all []string
		for _, name := range slices.Sorted(maps.Keys(flags)) {
			f := flags[name]
			if f.last < minor {
				if out := output("--"+name+"=1", "--version"); !strings.Contains(out, "flag provided but not defined") {
					t.Errorf("%s takes --%s: %s", version, name, out)
				}
				continue
			}
			if unknownTo(minor, name) || name == "version" || name == "feature-gates" {
				continue
			}
			value := example[f.kind]
			if f.kind == choice {
				value = f.values[len(f.values)-1:]
			}
			all = append(append(all, "--"+name), value...)
		}
		if out := output(append(all, "--version")...); !strings.Contains(out, "etcd Version") {
			t.Errorf("%s: %s", version, out)
		}
	}
}

// unknownTo says which flags came later.
func unknownTo(minor int, name string) bool {
	if flags[name].last < 5 {
		return true
	}
	if minor == 5 {
		return name == "experimental-warning-unary-request-duration" || flags[name].last == newest && slices.Contains(
			strings.Fields(`discovery-insecure-skip-tls-verify discovery-insecure-transport enable-distributed-tracing
			memory-mlock peer-skip-client-san-verification compact-hash-check-time compaction-sleep-interval
			corrupt-check-time discovery-dial-timeout discovery-keepalive-time discovery-keepalive-timeout
			discovery-request-timeout downgrade-check-time warning-apply-duration warning-unary-request-duration
			watch-progress-notify-interval compaction-batch-limit distributed-tracing-sampling-rate max-learners
			discovery-cacert discovery-cert discovery-endpoints discovery-key discovery-password discovery-token
			discovery-user distributed-tracing-address distributed-tracing-instance-id distributed-tracing-service-name
			feature-gates log-format bootstrap-defrag-threshold-megabytes snapshot-catchup-entries`), name)
	}
	return false
}
