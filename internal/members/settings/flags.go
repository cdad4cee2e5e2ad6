package settings

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/etcd-backupd/backupd/internal/members"
)

// kind is the type of a flag's value.
type kind int

const (
	text kind = iota
	boolean
	duration
	signed
	unsigned
	unsigned32
	urls
	ignored // a flag of etcd 0.4 that etcd accepts, like a boolean one, and does not use
	choice
	retention
)

// flag is what is known of one flag of etcd.
type flag struct {
	kind kind
	// last is the last minor of etcd 3 that knows it, newest for one that is in force.
	last int
	// values are those of a choice.
	values []string
}

// newest is the newest minor of etcd 3 that is known here.
const newest = 7

// flags are those of etcd 3.4 to 3.7. TestFlags compares them with the programs.
var flags = known(
	group{boolean, 4, "debug next-cluster-version-compatible"},
	group{boolean, 5, "enable-v2"},
	group{boolean, 6, `experimental-compact-hash-check-enabled experimental-enable-distributed-tracing
		experimental-enable-lease-checkpoint experimental-enable-lease-checkpoint-persist
		experimental-initial-corrupt-check experimental-memory-mlock experimental-peer-skip-client-san-verification
		experimental-stop-grpc-service-on-defrag experimental-txn-mode-write-with-shared-buffer`},
	group{boolean, newest, `auto-tls client-cert-auth discovery-insecure-skip-tls-verify
		discovery-insecure-transport enable-distributed-tracing enable-grpc-gateway enable-log-rotation enable-pprof
		force-new-cluster initial-election-tick-advance memory-mlock peer-auto-tls peer-client-cert-auth
		peer-skip-client-san-verification pre-vote socket-reuse-address socket-reuse-port strict-reconfig-check
		unsafe-no-fsync version`},
	group{duration, 6, `experimental-compact-hash-check-time experimental-compaction-sleep-interval
		experimental-corrupt-check-time experimental-downgrade-check-time experimental-warning-apply-duration
		experimental-warning-unary-request-duration experimental-watch-progress-notify-interval`},
	group{duration, newest, `backend-batch-interval compact-hash-check-time compaction-sleep-interval
		corrupt-check-time discovery-dial-timeout discovery-keepalive-time discovery-keepalive-timeout
		discovery-request-timeout downgrade-check-time grpc-keepalive-interval grpc-keepalive-min-time
		grpc-keepalive-timeout raft-read-timeout raft-write-timeout warning-apply-duration
		warning-unary-request-duration watch-progress-notify-interval`},
	group{ignored, newest, `cluster-active-size cluster-remove-delay cluster-sync-interval config force
		max-result-buffer max-retry-attempts peer-election-timeout peer-heartbeat-interval retry-interval snapshot
		test.coverprofile test.outputdir v vv`},
	group{signed, 6, "experimental-compaction-batch-limit experimental-distributed-tracing-sampling-rate"},
	group{signed, newest, `backend-batch-limit compaction-batch-limit distributed-tracing-sampling-rate
		max-learners quota-backend-bytes`},
	group{text, 4, "experimental-backend-bbolt-freelist-type log-output log-package-levels"},
	group{text, 5, "experimental-enable-v2v3"},
	group{text, 6, `discovery discovery-proxy experimental-distributed-tracing-address
		experimental-distributed-tracing-instance-id experimental-distributed-tracing-service-name`},
	group{text, newest, `auth-token backend-bbolt-freelist-type
		cert-file cipher-suites client-cert-allowed-hostname client-cert-file client-crl-file client-key-file
		config-file data-dir discovery-cacert discovery-cert discovery-endpoints discovery-key discovery-password
		discovery-srv discovery-srv-name discovery-token discovery-user distributed-tracing-address
		distributed-tracing-instance-id distributed-tracing-service-name feature-gates host-whitelist initial-cluster
		initial-cluster-token key-file log-format log-level log-outputs log-rotation-config-json logger metrics name
		peer-cert-allowed-cn peer-cert-allowed-hostname peer-cert-file peer-client-cert-file peer-client-key-file
		peer-crl-file peer-key-file peer-trusted-ca-file tls-max-version tls-min-version trusted-ca-file wal-dir`},
	group{urls, newest, `advertise-client-urls cors initial-advertise-peer-urls listen-client-http-urls
		listen-client-urls listen-metrics-urls listen-peer-urls`},
	group{unsigned, 5, `proxy-dial-timeout proxy-failure-wait proxy-read-timeout proxy-refresh-interval
		proxy-write-timeout`},
	group{unsigned, 6, "experimental-bootstrap-defrag-threshold-megabytes experimental-snapshot-catchup-entries"},
	group{unsigned, newest, `auth-token-ttl bcrypt-cost bootstrap-defrag-threshold-megabytes election-timeout
		heartbeat-interval max-request-bytes max-snapshots max-txn-ops max-wals self-signed-cert-validity
		snapshot-catchup-entries snapshot-count`},
	group{unsigned32, newest, "max-concurrent-streams"},
	group{retention, newest, "auto-compaction-retention"},
	group{choice, 5, "proxy=off|readonly|on"},
	group{choice, newest, `initial-cluster-state=new|existing discovery-fallback=exit|proxy
		auto-compaction-mode=periodic|revision
		v2-deprecation=not-yet|write-only|write-only-skip-check|write-only-drop-data|gone`},
)

type group struct {
	kind  kind
	last  int
	names string
}

func known(groups ...group) map[string]flag {
	out := map[string]flag{}
	for _, g := range groups {
		for word := range strings.FieldsSeq(g.names) {
			name, values, found := strings.Cut(word, "=")
			f := flag{kind: g.kind, last: g.last}
			if found {
				f.values = strings.Split(values, "|")
			}
			out[name] = f
		}
	}
	return out
}

// variable is the name of a flag in the environment.
func variable(name string) string {
	return "ETCD_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

// Bare is true if the flag needs no value after it: `--auto-tls name` is a flag and a word
// that etcd does not take.
func (f flag) bare() bool { return f.kind == boolean || f.kind == ignored }

// check says why etcd would not take the value.
func (f flag) check(value string) (problem string) {
	var err error
	switch f.kind {
	case boolean:
		_, err = strconv.ParseBool(value)
	case duration:
		_, err = time.ParseDuration(value)
	case signed:
		_, err = strconv.ParseInt(value, 0, 64)
	case unsigned:
		_, err = strconv.ParseUint(value, 0, 64)
	case unsigned32:
		_, err = strconv.ParseUint(value, 0, 32)
	case choice:
		if !slices.Contains(f.values, value) {
			return "it is none of " + strings.Join(f.values, ", ")
		}
	case retention:
		if n, bad := strconv.Atoi(value); bad != nil || n < 0 {
			_, err = time.ParseDuration(value)
		}
	case urls:
		if value != "" && value != "*" {
			_, err = members.ParseURLs(value)
		}
	}
	if err != nil {
		return err.Error()
	}
	return ""
}
