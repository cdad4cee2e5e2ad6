package config_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/etcd-backupd/backupd/internal/config"
	"github.com/etcd-backupd/backupd/internal/location"
	"github.com/etcd-backupd/backupd/internal/storage/s3"
)

// with puts YAML in place of the minimal file's parts: "cluster" adds keys to
// its cluster, "repository" to its repository, "snapshot" to the snapshot
// section, "daemon" adds a daemon section, "file" is the whole file.
func with(part, yaml string) string {
	repository, cluster, snapshot, daemon := "", "", "", ""
	switch part {
	case "file":
		return yaml
	case "repository":
		repository = yaml
	case "cluster":
		cluster = yaml
	case "snapshot":
		snapshot = yaml
	case "daemon":
		daemon = "daemon:\n" + indent(2, yaml)
	}
	return "repositories:\n  main:\n    url: s3://bucket/prefix\n" + indent(4, repository) +
		"# one\nclusters:\n- name: prod\n  endpoints: [10.0.0.1:2379]\n" + indent(2, cluster) +
		"  snapshot:\n    schedule: '@hourly'\n" + indent(4, snapshot) + daemon
}

func indent(n int, text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(strings.Repeat(" ", n) + strings.TrimSuffix(line, "\n") + "\n")
	}
	return b.String()
}

// TestProblems: every mistake has its position and its words.
func TestProblems(t *testing.T) {
	env := map[string]string{"N": "5", "WORD": "wordy-secret", "EMPTY": "", "YAML": "x\nretries: 7",
		"HOST": "https://u:hunter22@h:1"}
	const (
		repositories = "repositories: {a: {url: 'file:///a'}, b: {url: 'file:///b'}}\n"
		snapshot     = ", endpoints: ['h:1'], snapshot: {schedule: '@daily'}}"
	)
	for _, tt := range []struct {
		part, yaml string
		want       []string // line:column: path: message
	}{
		// The text.
		{"file", "", []string{"0:0: : the file is empty: 'backupd config example' prints one to begin with"}},
		{"file", "# only a comment\n---\n",
			[]string{"0:0: : the file is empty: 'backupd config example' prints one to begin with"}},
		{
			"file", minimal + "\n---\na: 1\n",
			[]string{"4:1: : a second YAML document begins here: the file must hold one"},
		},
		{"file", "a:\n\tb: 1", []string{"2:1: : not YAML: the line is indented by a tab: use spaces"}},
		{"file", "a: \xff", []string{"1:4: : the file must be UTF-8: this byte is not"}},
		{"file", "a: b\nä: \x00", []string{"2:4: : the file must not hold the control character U+0000"}},
		{"file", strings.Repeat("#", 1<<20+1), []string{"0:0: : the file has more than 1048576 bytes"}},
		{"file", "a: [1, 2\nb: 3\n",
			[]string{"2:2: : not YAML: did not find expected ',' or ']' (while parsing a flow sequence that begins " +
				"in line 1)"}},
		{"file", "a: \"abc\nb: 1\n",
			[]string{"1:4: : not YAML: found unexpected end of stream (while scanning a quoted scalar)"}},
		{"file", "a: *hunter2",
			[]string{"1:4: : not YAML: a value that begins with * is an alias, and there is no anchor " +
				"of this name: put quotes around the text"}},
		{"file", "clusters: &a [*a]", []string{
			"1:1: repositories: is missing",
			"1:15: clusters[0]: want a section with keys, not a list"}},
		{"file", "- a", []string{"1:1: : want a section with keys, not a list"}},
		{"file", "{}", []string{"1:1: repositories: is missing", "1:1: clusters: is missing"}},
		{"file", "repositories: {}\nclusters: []\n", []string{"1:15: repositories: must not be empty",
			"2:11: clusters: must not be empty"}},
		{"file", minimal + "\nx: &x {y: 1}", []string{`4:1: : unknown key "x": want clusters, daemon or repositories`}},
		{"file", "url: \"https://hunter2",
			[]string{"1:6: : not YAML: found unexpected end of stream (while scanning a quoted scalar)"}},
		{"file", "a:\n  - token: 'hunter2: b'c", []string{"2:24: : not YAML: did not find expected key"}},
		{"file", "bearer-token: |-\n hunter2\nx: *hunter2",
			[]string{"3:4: : not YAML: a value that begins with * is an alias, and there is no anchor of this name: " +
				"put " +
				"quotes " +
				"" +
				"around the text"}},
		{"file", "password:\n  \"hunter2",
			[]string{"2:3: : not YAML: found unexpected end of stream (while scanning a quoted scalar)"}},
		// Secrets beside a mistake.
		{"daemon", "notifications:\n- {slack: {url: 'https://h/hunter2', ulr: x}}\n- {slack: 'https://h/hunter2'}\n- " +
			"{webhook: {url: [hunter2]}, command: {program: x}}\n", []string{
			`12:40: daemon.notifications[0].slack: unknown key "ulr": want ca-file, url or url-file`,
			"13:13: daemon.notifications[1].slack: want a section with keys, not a single value",
			"14:5: daemon.notifications[2]: has the receivers webhook and command: make one notification of each",
			"14:21: daemon.notifications[2].webhook.url: want a single value, not a list"}},
		// Keys.
		{"repository", "s3:\n  regoin: x\n",
			[]string{`5:7: repositories.main.s3: unknown key "regoin": did you mean "region"?`}},
		{"snapshot", "maxAge: 1h\nretrys: 1\n", []string{
			`10:5: clusters[0].snapshot: unknown key "maxAge": did you mean "max-age"?`,
			`11:5: clusters[0].snapshot: unknown key "retrys": did you mean "retries"?`}},
		{"snapshot", "retries: 1\nretries: 2\n",
			[]string{`11:5: clusters[0].snapshot: the key "retries" is used twice: first in line 10`}},
		{"snapshot", "<<: {retries: 1}\n",
			[]string{"10:5: clusters[0].snapshot: merge keys (<<) are not part of YAML 1.2: use an alias for the " +
				"whole " +
				"section, or write it out"}},
		{"snapshot", "[a]: 1\n? {b: c}\n: 1\n", []string{"10:5: clusters[0].snapshot: a key must be a plain word",
			"11:7: clusters[0].snapshot: a key must be a plain word"}},
		{"snapshot", "true: 1\n", []string{`10:5: clusters[0].snapshot: unknown key "true": want hash-check, jitter, ` +
			`max-age, max-rate, request-timeout, retries, schedule, stall-timeout or timeout`}},
		{"snapshot", "${N}: 1\n", []string{`10:5: clusters[0].snapshot: unknown key "${N}": want hash-check, jitter, ` +
			`max-age, max-rate, request-timeout, retries, schedule, stall-timeout or timeout`}},
		// Kinds of values.
		{"snapshot", "retries: two\n", []string{"10:14: clusters[0].snapshot.retries: want a whole number"}},
		{
			"snapshot", "retries: 010\n",
			[]string{"10:14: clusters[0].snapshot.retries: a number must not begin with a zero"},
		},
		{"snapshot", "retries: 0x10\n", []string{"10:14: clusters[0].snapshot.retries: want a whole number"}},
		{"snapshot", "retries: 1.5\n", []string{"10:14: clusters[0].snapshot.retries: want a whole number"}},
		{"snapshot", "retries: -1\n", []string{"10:14: clusters[0].snapshot.retries: must not be negative"}},
		{"snapshot", "retries: 99999999999\n",
			[]string{"10:14: clusters[0].snapshot.retries: the number is too large: want at most 2147483647"}},
		{"snapshot", "retries: '3'\n",
			[]string{"10:14: clusters[0].snapshot.retries: want the value without quotes: it is not a text"}},
		{
			"snapshot", "retries: [3]\n",
			[]string{"10:14: clusters[0].snapshot.retries: want a single value, not a list"},
		},
		{"snapshot", "retries:\n",
			[]string{"10:13: clusters[0].snapshot.retries: has no value: give it one, or remove the key"}},
		{"snapshot", "retries: ~\n",
			[]string{"10:14: clusters[0].snapshot.retries: has no value: give it one, or remove the key"}},
		{"snapshot", "retries: !!int 3\n",
			[]string{"10:14: clusters[0].snapshot.retries: YAML tags such as !!int are not allowed"}},
		{"snapshot", "hash-check: yes\n", []string{
			"10:17: clusters[0].snapshot.hash-check: \"yes\" is not known: want one, all or off"}},
		{"snapshot", "jitter: 30\n",
			[]string{"10:13: clusters[0].snapshot.jitter: want a duration with its unit, such as 90s, 1h30m or 7d"}},
		{"snapshot", "max-age: -5m\ntimeout: 1d-5h\n", []string{
			"10:14: clusters[0].snapshot.max-age: must not be negative",
			"11:14: clusters[0].snapshot.timeout: want a duration with its unit, such as 90s, 1h30m or 7d"}},
		{"snapshot", "max-age: 99999w\n",
			[]string{"10:14: clusters[0].snapshot.max-age: the duration is too long: want less than 292 years"}},
		{"daemon", "spool: {max-bytes: 10 apples}\n",
			[]string{"11:22: daemon.spool.max-bytes: want a size, such as 500MiB or 10GiB"}},
		{"daemon", "spool: {max-bytes: 99EB}\n", []string{"11:22: daemon.spool.max-bytes: the size is too large"}},
		{"daemon", "spool: {max-bytes: -1}\n", []string{"11:22: daemon.spool.max-bytes: must not be negative"}},
		{"daemon", "log: json\n", []string{"11:8: daemon.log: want a section with keys, not a single value"}},
		{"daemon", "log: {level: warning}\n",
			[]string{`11:16: daemon.log.level: "warning" is not known: want debug, info, warn or error: did you mean ` +
				`"warn"?`}},
		{"daemon", "log:\n", []string{"11:7: daemon.log: has no value: give it one, or remove the key"}},
		{"daemon", "concurrency: 0\n", []string{"11:16: daemon.concurrency: must be at least 1"}},
		{"cluster", "defragment: {schedule: '@daily', threshold: 1.5}\n",
			[]string{"8:47: clusters[0].defragment.threshold: want a number from 0 to 1"}},
		{"cluster", "defragment: {threshold: .nan}\n",
			[]string{"8:27: clusters[0].defragment.threshold: want a number from 0 to 1"}},
		{
			"cluster", "labels: [a]\n",
			[]string{"8:11: clusters[0].labels: want a section with names as keys, not a list"},
		},
		// The environment.
		{"snapshot", "retries: ${NOPE}\n",
			[]string{"10:14: clusters[0].snapshot.retries: the environment variable NOPE is not set"}},
		{"cluster", "user: ${NOPE}${NEITHER}\npassword-file: /p\n", []string{
			"8:9: clusters[0].user: the environment variable NOPE is not set",
			"8:9: clusters[0].user: the environment variable NEITHER is not set"}},
		{"cluster", "labels: {a: $N, b: '${', c: '${N:-x}', d: a$}\n", []string{
			"8:15: clusters[0].labels.a: write $$ for a dollar sign, and ${NAME} for a variable of the environment",
			"8:22: clusters[0].labels.b: ${ has no closing brace",
			"8:31: clusters[0].labels.c: ${N:-x} does not name a variable of the environment: want letters, digits " +
				"and " +
				"underscores",
			"8:45: clusters[0].labels.d: write $$ for a dollar sign, and ${NAME} for a variable of the environment"}},
		{"snapshot", "retries: ${WORD}\n", []string{"10:14: clusters[0].snapshot.retries: want a whole number"}},
		{"snapshot", "retries: ${EMPTY}\n", []string{"10:14: clusters[0].snapshot.retries: want a whole number"}},
		{"cluster", "repository: ${WORD}\n",
			[]string{`8:15: clusters[0].repository: there is no repository "${WORD}": want main`}},
		{"cluster", "local-endpoint: ${YAML}\n",
			[]string{`8:19: clusters[0].local-endpoint: "${YAML}" has no port from 0 to 65535: want an endpoint such ` +
				`as ` +
				`https://10.0.0.1:2379`}},
		// Repositories.
		{"file", strings.Replace(minimal, "file:///backups", "ftp://x", 1),
			[]string{`1:28: repositories.main.url: "ftp://x" is not known: want file:///path or s3://bucket/prefix`}},
		{"file", strings.Replace(minimal, "file:///backups", "file://backups", 1),
			[]string{"1:28: repositories.main.url: file://backups: want an absolute path, with three slashes: " +
				"file:///path"}},
		{"file", strings.Replace(minimal, "file:///backups", "s3://key:hunter2@bucket", 1),
			[]string{"1:28: repositories.main.url: the URL must not hold credentials: use s3.credentials-file, or " +
				"AWS_* " +
				"variables"}},
		{"file", strings.Replace(minimal, "file:///backups", "s3://bucket?secret=hunter2", 1),
			[]string{"1:28: repositories.main.url: the URL of a bucket has no settings after ?: they are keys in s3"}},
		{"file", strings.Replace(minimal, "file:///backups", "s3://key:a/hunter2@bucket", 1),
			[]string{"1:28: repositories.main.url: the URL must not hold credentials: use s3.credentials-file, or " +
				"AWS_* variables"}},
		{"file", strings.Replace(minimal, "file:///backups", "https://key:hunter2@s3.example.net/b", 1),
			[]string{"1:28: repositories.main.url: the URL must not hold credentials: use s3.credentials-file, or " +
				"AWS_* variables"}},
		{"file", strings.Replace(minimal, "'file:///backups'", "'s3://b', s3: {endpoint: 'http://key:hunter2'}", 1),
			[]string{"1:53: repositories.main.s3.endpoint: the URL must not hold a user or a password"}},
		{"cluster", "verify: {identity-files: [AGE-SECRET-KEY-1QQQ]}\n",
			[]string{"8:29: clusters[0].verify.identity-files[0]: this is a secret, and not the name of a file " +
				"that holds it"}},
		{"cluster", `companions: {secrets: [a/b], unencrypted: true, kubeconfig: "token: hunter2\nusers:"}` + "\n",
			[]string{"8:63: clusters[0].companions.kubeconfig: this is a secret, and not the name of a file " +
				"that holds it"}},
		{"cluster", "local-endpoint: root:hunter2@a:1\n",
			[]string{"8:19: clusters[0].local-endpoint: the endpoint must not hold a user or a password"}},
		{"cluster", "local-endpoint: http://root:hunter2\n",
			[]string{"8:19: clusters[0].local-endpoint: the URL must not hold a user or a password"}},
		{"file", strings.Replace(minimal, "'file:///backups'", "'file:///x', s3: {region: x}", 1),
			[]string{"1:45: repositories.main.s3: has no effect on a repository in a folder: remove it, or make the " +
				"URL " +
				"s3://bucket/prefix"}},
		{"file", strings.Replace(minimal, "'file:///backups'", "'s3://b/x', file: {min-free: 1GiB}", 1),
			[]string{"1:46: repositories.main.file: has no effect on a repository in a bucket: remove it, or make " +
				"the URL file:///path"}},
		{"file", strings.Replace(minimal, "'file:///backups'", "'file:///x', file: {min-free: much}", 1),
			[]string{"1:58: repositories.main.file.min-free: want a size, such as 3GiB, or a part of the file system, " +
				"such as 20%"}},
		{"file", strings.Replace(minimal, "main:", "'a b':", 1),
			[]string{`1:23: repositories.a b: repository name "a b": want 1 to 63 letters, digits, '.', '_' or '-', ` +
				`beginning ` +
				`with a letter or digit`}},
		{"repository", "s3: {sse: AES256, sse-kms-key-id: k, sse-c-key-file: /k}\n", []string{
			"4:39: repositories.main.s3.sse-kms-key-id: needs sse: aws:kms",
			"4:58: repositories.main.s3.sse-c-key-file: a customer key and sse exclude each other: choose one"}},
		{"repository", "s3: {endpoint: 'http://h', sse-c-key-file: k}\n", []string{
			`4:48: repositories.main.s3.sse-c-key-file: "k" is a relative path: want an absolute one`,
			"4:48: repositories.main.s3.sse-c-key-file: the customer key would be sent unencrypted: it needs an " +
				"endpoint with " +
				"https://"}},
		{"repository", "repository-id: n4qk7v2x5yj3m6d7r2t4w6z5ae\ncreate-if-missing: true\n", []string{
			"5:24: repositories.main.create-if-missing: excludes repository-id: a repository that is known is never " +
				"made again"}},
		{"repository", "repository-id: short\n", []string{
			`4:20: repositories.main.repository-id: "short" is too short for an id: 'backupd init' prints it`}},
		{"repository", "s3: {endpoint: 'https://u:p@h'}\n",
			[]string{"4:20: repositories.main.s3.endpoint: the URL must not hold a user or a password"}},
		{"repository", "compression: gzip\ns3: {path-style: yes}\n", []string{
			`4:18: repositories.main.compression: "gzip" is not known: want zstd or none`,
			`5:22: repositories.main.s3.path-style: "yes" is not known: want on or off`}},
		{"repository", "recipients: [age1nonsense, AGE-SECRET-KEY-1QQQ]\n", []string{
			"4:18: repositories.main.recipients[0]: this is not an age public key: want age1... or age1pq1...",
			"4:32: repositories.main.recipients[1]: this is not an age public key: want age1... or age1pq1..."}},
		// Clusters.
		{"file", repositories + "clusters:\n- {name: a, repository: a" + snapshot + "\n- {name: a, repository: c" +
			snapshot,
			[]string{
				`4:10: clusters[1].name: "a" is already the name of clusters[0], in line 3: every cluster needs its ` +
					`own`,
				`4:25: clusters[1].repository: there is no repository "c": did you mean "a"?`}},
		{"file", repositories + "clusters:\n- {name: a" + snapshot,
			[]string{"3:3: clusters[0].repository: is missing: there are several, so say which: a or b"}},
		{"file", repositories + "clusters:\n- {repository: a}\n- 5\n", []string{
			"3:3: clusters[0].name: is missing", "3:3: clusters[0].snapshot: is missing",
			"3:3: clusters[0].endpoints: is missing",
			"4:3: clusters[1]: want a section with keys, not a single value"}},
		{"file", strings.Replace(minimal, "prod", "-x", 1),
			[]string{`3:10: clusters[0].name: cluster name "-x": want 1 to 63 letters, digits, '.', '_' or '-', ` +
				`beginning ` +
				`with ` +
				`a letter or digit`}},
		{"cluster", "tls: {cert-file: /c}\nuser: u\n", []string{"8:20: clusters[0].tls.cert-file: needs key-file too",
			"9:9: clusters[0].user: needs password-file too"}},
		{"cluster", "discovery-srv: example.com\ntoken-file: /t\nuser: u\npassword-file: /p\n", []string{
			"8:18: clusters[0].discovery-srv: excludes endpoints: the records of the domain name them",
			"9:15: clusters[0].token-file: excludes user: a client logs in with the one or the other"}},
		{"cluster", "discovery-srv-name: x\n", []string{
			"8:23: clusters[0].discovery-srv-name: needs discovery-srv too"}},
		{"file", strings.Replace(minimal, "endpoints: ['127.0.0.1:2379']", "discovery-srv: 'https://u:p@x'", 1), []string{
			"3:31: clusters[0].discovery-srv: this is no domain: want for example example.com"}},
		{"cluster", "tls: {ca-file: ca.crt, insecure-skip-verify: true}\n", []string{
			`8:18: clusters[0].tls.ca-file: "ca.crt" is a relative path: want an absolute one`,
			"8:48: clusters[0].tls.insecure-skip-verify: excludes ca-file: certificates are either verified or not"}},
		{"file", strings.Replace(minimal, "'127.0.0.1:2379'",
			"h, 'h:99999', 'https://h', 'https://h:1/x', 'ftp://h:1', 'https://u:hunter2@h:1', 'http://h:1', "+
				"'http://h:1', "+
				"'unix://', ''", 1), []string{
			`3:28: clusters[0].endpoints[0]: "h" is not a host with a port: want an endpoint such as ` +
				`https://10.0.0.1:2379`,
			`3:31: clusters[0].endpoints[1]: "h:99999" has no port from 0 to 65535: want an endpoint such as ` +
				`https://10.0.0.1:2379`,
			`3:42: clusters[0].endpoints[2]: "https://h": want an endpoint such as https://10.0.0.1:2379, with its ` +
				`port`,
			"3:55: clusters[0].endpoints[3]: an endpoint ends with its port: write https://10.0.0.1:2379, with no path " +
				"and no query",
			"3:72: clusters[0].endpoints[4]: want a URL that begins with http:// or https://",
			"3:85: clusters[0].endpoints[5]: the URL must not hold a user or a password",
			"3:124: clusters[0].endpoints[7]: is listed twice",
			"3:138: clusters[0].endpoints[8]: the endpoint names no socket",
			`3:149: clusters[0].endpoints[9]: "" is not a host with a port: want an endpoint such as ` +
				`https://10.0.0.1:2379`}},
		{"file", strings.Replace(minimal, "127.0.0.1:2379", "http://h:1/?password=hunter2', 'h:1?hunter2", 1), []string{
			"3:28: clusters[0].endpoints[0]: an endpoint ends with its port: write https://10.0.0.1:2379, with no path " +
				"and no query",
			"3:60: clusters[0].endpoints[1]: an endpoint ends with its port: write https://10.0.0.1:2379, with no path " +
				"and no query"}},
		{"cluster", "local-endpoint: http://127.0.0.1:2379\ntls: {ca-file: /ca}\n",
			[]string{"8:19: clusters[0].local-endpoint: the endpoint has no TLS, but tls is given: write https:// or " +
				"unixs://, " +
				"" +
				"or remove tls"}},
		// Companions.
		{"cluster", "companions: {paths: [/etc/pki]}\n",
			[]string{"8:15: clusters[0].companions: these files may be keys, and repository main is not encrypted: give it " +
				"recipients, or set unencrypted: true here"}},
		{"cluster", "companions: {paths: [pki], unencrypted: true}\n",
			[]string{`8:23: clusters[0].companions.paths: "pki": want an absolute path in its shortest form`}},
		{"cluster", "companions: {secrets: [ns/name]}\n",
			[]string{"8:15: clusters[0].companions: these files may be keys, and repository main is not encrypted: give it " +
				"recipients, or set unencrypted: true here"}},
		{"cluster", "companions: {secrets: [name], unencrypted: true}\n",
			[]string{`8:25: clusters[0].companions.secrets: "name": want NAMESPACE/NAME of a Secret`}},
		{"cluster", "companions: {paths: [/kubernetes.io/x], unencrypted: true}\n",
			[]string{`8:23: clusters[0].companions.paths: "/kubernetes.io/x": this path is reserved for Secrets of Kubernetes`}},
		{"cluster", "companions: {kubeconfig: /k}\n",
			[]string{"8:28: clusters[0].companions.kubeconfig: has no effect without secrets"}},
		{"cluster", "companions: {kubeconfig: k, secrets: [a/b], unencrypted: true}\n",
			[]string{`8:28: clusters[0].companions.kubeconfig: "k" is a relative path: want an absolute one`}},
		{"cluster", "companions: {paths: [/], unencrypted: true}\n",
			[]string{`8:23: clusters[0].companions.paths: "/": want an absolute path in its shortest form`}},
		// Schedules.
		{"snapshot", "jitter: 1h\n",
			[]string{"10:13: clusters[0].snapshot.jitter: must be less than the shortest time between two runs, " +
				"which is " +
				"1h0m0s"}},
		{"snapshot", "max-rate: 1MiB\n",
			[]string{"10:15: clusters[0].snapshot.max-rate: must be 0 or at least 4MiB: while a stream is open etcd " +
				"cannot reuse pages"}},
		{"snapshot", "timeout: 0s\n", []string{"10:14: clusters[0].snapshot.timeout: must be more than 0"}},
		{"cluster", "verify: {schedule: '0 0 31 2 *'}\ndefragment: {schedule: 'CRON_TZ=UTC'}\n", []string{
			`8:22: clusters[0].verify.schedule: schedule "0 0 31 2 *": no such date ever comes: check the day and ` +
				`the month`,
			`9:26: clusters[0].defragment.schedule: schedule "CRON_TZ=UTC": it is empty: want five fields (minute ` +
				`hour day ` +
				`month weekday), a sixth for seconds in front, or @hourly, @daily, @weekly, @monthly, @yearly, or ` +
				`@every with a ` +
				`duration such as 6h30m`}},
		// Retention.
		{"cluster", "retention: {min-verified: 0, time-zone: Europe/Berlim}\n", []string{
			"8:29: clusters[0].retention.min-verified: must be at least 1",
			"8:43: clusters[0].retention.time-zone: unknown time zone Europe/Berlim: want a name such as " +
				"Europe/Berlin"}},
		{"cluster", "retention: {max-bytes: 1GB}\n",
			[]string{"8:26: clusters[0].retention.max-bytes: has no effect: nothing is ever removed without a keep " +
				"rule, such " +
				"as keep-last"}},
		// The daemon.
		{"daemon", "server: {listen: 0.0.0.0:9387}\n",
			[]string{"11:20: daemon.server.listen: other hosts can reach 0.0.0.0:9387: that needs cert-file and " +
				"key-file, and " +
				"read-tokens-file, operate-tokens-file or callers"}},
		{"daemon", "server: {listen: ':9387', cert-file: /c, key-file: /k}\n",
			[]string{"11:20: daemon.server.listen: other hosts can reach :9387: that needs cert-file and key-file, " +
				"and " +
				"read-tokens-file, operate-tokens-file or callers"}},
		{"daemon", "server: {listen: nonsense, client-ca-file: /c}\n", []string{
			`11:20: daemon.server.listen: "nonsense" is not a host with a port: want an address such as ` +
				`127.0.0.1:9387, or off`,
			"11:46: daemon.server.client-ca-file: nobody is known by a certificate: give callers with certificate: NAME",
			"11:46: daemon.server.client-ca-file: needs cert-file and key-file: there are no client certificates " +
				"without TLS"}},
		{"daemon", "server: {metrics-listen: '127.0.0.1:9387', callers: [{}, {certificate: a, tokens-file: /t},\n" +
			"{certificate: a, clusters: []}, {tokens-file: /t, scope: write, clusters: [prot, prod, prod]}]}\n", []string{
			"11:28: daemon.server.metrics-listen: is the same address as listen",
			"11:56: daemon.server.callers[0]: needs certificate or tokens-file",
			"11:60: daemon.server.callers[1]: has both certificate and tokens-file: make one caller of each",
			"12:17: daemon.server.callers[2].certificate: needs client-ca-file: it says which certificates are genuine",
			"12:30: daemon.server.callers[2].clusters: must not be empty: remove the key to allow all clusters",
			`12:60: daemon.server.callers[3].scope: "write" is not known: want read or operate`,
			`12:78: daemon.server.callers[3].clusters[0]: there is no cluster "prot": did you mean "prod"?`,
			`12:90: daemon.server.callers[3].clusters[2]: "prod" is listed twice`}},
		{"daemon", "server: {metrics-listen: x}\n", []string{
			`11:28: daemon.server.metrics-listen: "x" is not a host with a port: want an address such as 127.0.0.1:9388`}},
		{"daemon",
			"notifications:\n- on: [failure]\n- {slack: {url: 'https://h/x'}, command: {program: x}}\n- {clusters: [prot], " +
				"on: [failed, start, start], command: {}}\n", []string{
				"12:5: daemon.notifications[0]: has no receiver: give it webhook, slack, healthchecks or command",
				"13:5: daemon.notifications[1]: has the receivers slack and command: make one notification of each",
				`14:17: daemon.notifications[2].clusters[0]: there is no cluster "prot": did you mean "prod"?`,
				`14:29: daemon.notifications[2].on[0]: "failed" is not known: want failure, recovery, prune-failure, ` +
					"new-history, certificate-expiring, success or start",
				`14:44: daemon.notifications[2].on[2]: "start" is listed twice`,
				"14:61: daemon.notifications[2].command.program: is missing"}},
		{"daemon", "notifications:\n- command: [curl, hunter2]\n- command: {program: x, args: hunter2}\n- command: " +
			"{program: x, env: {BACKUPD_EVENT_KIND: hunter2, a-b: hunter2}}\n", []string{
			"12:14: daemon.notifications[0].command: want a section with keys, not a list",
			"13:33: daemon.notifications[1].command.args: want a list, not a single value",
			"14:53: daemon.notifications[2].command.env.BACKUPD_EVENT_KIND: BACKUPD_EVENT_KIND: the variables " +
				"BACKUPD_EVENT_* tell the event",
			`14:67: daemon.notifications[2].command.env.a-b: "a-b" is no name of a variable: want letters, digits and _`}},
		{"daemon",
			"notifications:\n- on: failure\n  slack: {}\n- webhook: {url: 'x', url-file: /x, template: '{{'}\n- " +
				"healthchecks: {url: 'ftp://x'}\n", []string{
				"12:9: daemon.notifications[0].on: want a list, not a single value",
				"13:12: daemon.notifications[0].slack: needs url or url-file",
				"14:14: daemon.notifications[1].webhook: has both url and url-file: give one",
				"14:49: daemon.notifications[1].webhook.template: webhook template: template: webhook:1: unclosed " +
					"action",
				"15:25: daemon.notifications[2].healthchecks.url: want a URL that begins with https:// or http://"}},
		// A ping URL stands for one cluster.
		{"file", repositories + "clusters:\n- {name: x, repository: a" + snapshot + "\n- {name: y, repository: b" + snapshot +
			"\ndaemon: {notifications: [\n{healthchecks: {url-file: /u}},\n{clusters: [x, y], healthchecks: {url-file: /v}},\n" +
			"{clusters: [x], on: [failure, prune-failure], healthchecks: {url: 'https://h/hunter2'}},\n" +
			"{clusters: [y], healthchecks: {url: 'https://H/hunter2/'}},\n" +
			"{clusters: [y], on: [start], healthchecks: {url-file: /w}},\n{clusters: [y], healthchecks: {url-file: /w}}]}\n",
			[]string{
				"6:1: daemon.notifications[0]: one ping URL of the clusters x, y stays green while one of them is backed " +
					"up: give each cluster a notification of its own, with clusters: [NAME] and another URL",
				"7:1: daemon.notifications[1]: one ping URL of the clusters x, y stays green while one of them is backed " +
					"up: give each cluster a notification of its own, with clusters: [NAME] and another URL",
				"8:31: daemon.notifications[2].on[1]: a ping URL stands for backups: it gets no prune-failure",
				"9:31: daemon.notifications[3].healthchecks: the clusters x and y have the same ping URL (the one in " +
					"daemon.notifications[2].healthchecks.url), which stays green while one of them is backed up: give each " +
					"cluster a notification of its own, with clusters: [NAME] and another URL",
			}},
	} {
		text := with(tt.part, tt.yaml)
		_, err := parse(t, text, env)
		var e *config.Error
		if !errors.As(err, &e) {
			t.Errorf("%s\ngot %v, want %s", text, err, tt.want)
			continue
		}
		var got []string
		for _, p := range e.Problems {
			got = append(got, fmt.Sprintf("%d:%d: %s: %s", p.Line, p.Column, p.Path, p.Message))
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%.2000s\n-want +got\n%s", text, diff)
		}
		for _, secret := range []string{"hunter2", "wordy-secret", "AGE-SECRET", "u:p@"} {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("the error shows %s:\n%v", secret, err)
			}
		}
	}
}

func TestDefaults(t *testing.T) {
	c, err := parse(t, minimal, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := config.Cluster{
		Name: "prod", Endpoints: []string{"127.0.0.1:2379"}, Repository: "main",
		Snapshot: config.Snapshot{Schedule: "@hourly", MaxAge: 24 * time.Hour, Timeout: 2 * time.Hour, Retries: 3,
			HashCheck: "one", StallTimeout: 30 * time.Second, RequestTimeout: 5 * time.Second},
		Retention:  config.Retention{MinVerified: 3, FreezeFor: 720 * time.Hour, TimeZone: "UTC"},
		Defragment: config.Defragment{Threshold: 0.3},
	}
	if diff := cmp.Diff(want, c.Clusters[0]); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if diff := cmp.Diff(config.Daemon{Server: config.Server{Listen: "127.0.0.1:9387"}, Concurrency: 2,
		Log: config.Log{Format: "text", Level: "info"}}, c.Daemon); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	repositories := map[string]config.Repository{"main": {
		URL: "file:///backups", Compression: "zstd", Options: location.Options{S3: s3.Options{Checksum: "auto"}},
	}}
	if diff := cmp.Diff(repositories, c.Repositories); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// A value in the file overrides the default, even if it is zero.
func TestValues(t *testing.T) {
	env := map[string]string{"N": "5", "SLACK": "https://hooks.example/secret", "HOME": "/h", "EMPTY": "",
		"TRUE": "true"}
	text := `repositories: &all
  main: {url: 'file://${HOME}/a%20b', compression: ''}
clusters:
- name: ${EMPTY}prod
  endpoints: [unix:///s, "https://[::1]:2379"]
  snapshot: &snap {schedule: '*/5 * * * *', jitter: 0, max-age: 0s, retries: "${N}", hash-check: off, timeout: 1w2d3h}
  retention: {keep-last: 0, keep-within: 1.5h, min-verified: 1, keep-daily: 7,
    max-bytes: 1.5GiB, time-zone: Europe/Berlin}
  labels: {on: yes, number: 010, text: "a $$ or ${N}$${N}", empty: ""}
- {name: two, endpoints: [h:1], snapshot: *snap}
daemon:
  server: {listen: off}
  spool: {max-bytes: 1048576}
  notifications:
  - slack: {url: "${SLACK}"}
  - {on: [success], clusters: [prod], healthchecks: {url-file: /u}}
  - {clusters: [prod], healthchecks: {url-file: /u}}
`
	c, err := parse(t, text, env)
	if err != nil {
		t.Fatal(err)
	}
	snap := config.Snapshot{Schedule: "*/5 * * * *", Retries: 5, Timeout: (9*24 + 3) * time.Hour, HashCheck: "off",
		StallTimeout: 30 * time.Second, RequestTimeout: 5 * time.Second}
	if diff := cmp.Diff([]config.Snapshot{snap, snap}, []config.Snapshot{c.Clusters[0].Snapshot,
		c.Clusters[1].Snapshot}); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if diff := cmp.Diff(config.Retention{KeepWithin: 90 * time.Minute, MinVerified: 1, KeepDaily: 7, MaxBytes: 3 << 29,
		FreezeFor: 720 * time.Hour, TimeZone: "Europe/Berlin"}, c.Clusters[0].Retention); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if !c.Clusters[0].Policy().CountUnconfirmed { // hash-check is off
		t.Error("nothing is compared, and unconfirmed snapshots do not count")
	}
	if diff := cmp.Diff(map[string]string{"on": "yes", "number": "010", "text": "a $ or 5${N}", "empty": ""},
		c.Clusters[0].Labels); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if r := c.Repositories["main"]; r.URL != "file:///h/a%20b" || r.Compression != "zstd" ||
		c.Clusters[0].Name != "prod" {
		t.Errorf("got %+v, %s", r, c.Clusters[0].Name)
	}
	d := c.Daemon
	if d.Server.Listen != "" || d.Spool.MaxBytes != 1<<20 || string(d.Notifications[0].Slack.URL) != env["SLACK"] {
		t.Errorf("got %+v", d)
	}
	for i, want := range [][]string{
		{"failure", "recovery", "prune-failure", "new-history", "certificate-expiring"}, {"success"},
		{"failure", "recovery", "new-history", "success", "start"},
	} {
		if diff := cmp.Diff(want, d.Notifications[i].On); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
	}
}

func TestFullMessage(t *testing.T) {
	_, err := parse(t, "repositories: {main: {url: 's3://b'}}\nclusters:\n  - nmae: prod\n    password: hunter2\n    "+
		"endpoints: [\"h:1\"]\n    snapshot: {schedule: '@dialy'}\n", nil)
	want := `4 problems in the configuration:
test.yaml:3:5: clusters[0]: unknown key "nmae": did you mean "name"?
    3 |   - nmae: ***
      |     ^
test.yaml:3:5: clusters[0].name: is missing
    3 |   - nmae: ***
      |     ^
test.yaml:4:5: clusters[0]: unknown key "password": did you mean "password-file"?
    4 |     password: ***
      |     ^
test.yaml:6:26: clusters[0].snapshot.schedule: schedule "@dialy": unrecognized descriptor: @dialy: ` +
		`want five fields (minute hour day month weekday), a sixth for seconds in front, or @hourly, @daily, ` +
		`@weekly, @monthly, @yearly, or @every with a duration such as 6h30m
    6 |     snapshot: {schedule: '@dialy'}
      |                          ^`
	if diff := cmp.Diff(want, fmt.Sprint(err)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}
