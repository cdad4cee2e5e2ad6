// Package config reads the daemon's one YAML file, strictly, and turns it into
// the typed options of the packages it configures.
//
// The types in this source file are the keys. Their comments and tags are the only
// description of a key: the JSON Schema and the tables of docs/configuration.md are
// made from them.
package config

import (
	"time"

	"github.com/etcd-backupd/backupd/internal/config/strict"
	"github.com/etcd-backupd/backupd/internal/location"
	"github.com/etcd-backupd/backupd/internal/secret"
)

// Config is the whole file. Keys are kebab-case, like etcd's own.
type Config struct {
	// Repositories by name. Clusters refer to them by these names.
	Repositories map[string]Repository `yaml:"repositories" required:"yes"`
	// Clusters to guard.
	Clusters []Cluster `yaml:"clusters" required:"yes"`
	// Daemon holds the settings that are not of one cluster.
	Daemon Daemon `yaml:"daemon"`

	source *strict.Source // the parsed text, for messages
}

// Error lists all problems of a configuration that cannot be used.
type Error = strict.Error

// Problem is one mistake and its place.
type Problem = strict.Problem

// Secret is a text that prints as a mask.
type Secret = secret.Text

// Repository says where snapshots are stored, and how they are encoded.
type Repository struct {
	// URL of the repository: file:///path or s3://bucket/prefix.
	URL string `yaml:"url" required:"yes"`
	// ID of the repository, as 'backupd init' prints it. With it another repository at
	// the same address, such as an empty mount point, counts as none, and snapshots wait
	// in the spool while the repository is not there.
	ID string `yaml:"repository-id"`
	// CreateIfMissing lets a backup make the repository if there is none. A folder must be
	// there all the same. Leave it out where a disk may not be mounted.
	CreateIfMissing bool `yaml:"create-if-missing" default:"false"`
	// Options has the keys that say how to reach and use the store: s3, file.
	location.Options
	// Compression of new snapshots.
	Compression string `yaml:"compression" default:"zstd" oneof:"zstd none"`
	// Recipients are the age public keys (age1..., age1pq1...) that new snapshots
	// are encrypted to. Without recipients they are not encrypted.
	Recipients []string `yaml:"recipients"`
	// RecipientsFiles hold more recipients, one a line.
	RecipientsFiles []string `yaml:"recipients-files"`
}

// Cluster is one etcd cluster to guard.
type Cluster struct {
	// Name of the cluster, and of its folder in the repository: 1 to 63 letters,
	// digits, dots, dashes and underscores.
	Name string `yaml:"name" required:"yes"`
	// Endpoints are the client URLs of its members. Name all of them: each snapshot
	// comes from the member that suits best, and none through a proxy is verified.
	// Required without discovery-srv.
	Endpoints []string `yaml:"endpoints"`
	// DiscoverySRV is a domain whose SRV records name the client URLs, instead of
	// endpoints: _etcd-client-ssl._tcp and, without tls, also _etcd-client._tcp. They are
	// looked up for each job. With tls, certificates must be for this domain.
	DiscoverySRV string `yaml:"discovery-srv"`
	// DiscoverySRVName is added to the service of discovery-srv:
	// _etcd-client-ssl-NAME._tcp.
	DiscoverySRVName string `yaml:"discovery-srv-name"`
	// TLS names the files for https endpoints.
	TLS TLS `yaml:"tls"`
	// User of etcd, if auth is enabled. The user needs the role root.
	User string `yaml:"user"`
	// PasswordFile holds the user's password.
	PasswordFile string `yaml:"password-file"`
	// TokenFile holds a JWT of etcd, instead of user and password. It is read again when
	// it changes.
	TokenFile string `yaml:"token-file"`
	// Repository is the name of the repository for this cluster's snapshots. It may
	// be left out if there is only one.
	Repository string `yaml:"repository"`
	// LocalEndpoint makes this daemon the sidecar of the member at that endpoint:
	// it works only in the slots of that member.
	LocalEndpoint string `yaml:"local-endpoint"`
	// Snapshot says when and how snapshots are taken.
	Snapshot Snapshot `yaml:"snapshot" required:"yes"`
	// Companions are files of this host, and Secrets of Kubernetes, that are stored with each
	// snapshot.
	Companions Companions `yaml:"companions"`
	// Verify says when stored snapshots are verified again.
	Verify Verify `yaml:"verify"`
	// Retention says which snapshots are kept.
	Retention Retention `yaml:"retention"`
	// Defragment says when members are defragmented.
	Defragment Defragment `yaml:"defragment"`
	// Labels are sent with notifications and returned by the API.
	Labels map[string]string `yaml:"labels"`
}

// TLS names the files of a client. They are read again when they change.
type TLS struct {
	// CAFile holds the CAs that the members' certificates are verified against.
	CAFile string `yaml:"ca-file"`
	// CertFile is the client certificate.
	CertFile string `yaml:"cert-file"`
	// KeyFile is the key of the client certificate.
	KeyFile string `yaml:"key-file"`
	// InsecureSkipVerify accepts every certificate. Then any host that answers
	// could send any database.
	InsecureSkipVerify bool `yaml:"insecure-skip-verify"`
}

// Snapshot says when and how snapshots are taken.
type Snapshot struct {
	// Schedule is a cron line of five fields, or six with seconds in front, or a
	// word such as @hourly, @daily or @every 6h. It means UTC unless it begins with
	// CRON_TZ=ZONE.
	Schedule string `yaml:"schedule" required:"yes"`
	// Jitter is the longest random delay of a run.
	Jitter time.Duration `yaml:"jitter" default:"0s"`
	// MaxAge forces a snapshot if the last verified one is older, even if nothing
	// has changed. 0s takes one in every slot.
	MaxAge time.Duration `yaml:"max-age" default:"24h"`
	// Timeout bounds one run with all its retries.
	Timeout time.Duration `yaml:"timeout" default:"2h"`
	// Retries is how often a failed run is tried again in its slot.
	Retries int `yaml:"retries" default:"3"`
	// HashCheck compares each snapshot with the HashKV of one voting member, another
	// one each time, or of all, one after the other. A leader is asked only if nobody
	// else can answer, and with a large database only by all. With off snapshots are
	// stored as unconfirmed, and count as protection all the same.
	HashCheck string `yaml:"hash-check" default:"one" oneof:"one all off"`
	// StallTimeout is how long a stream may be silent before another member is
	// asked.
	StallTimeout time.Duration `yaml:"stall-timeout" default:"30s"`
	// MaxRate bounds a stream, in bytes per second, at least 4MiB. 0 sets no bound. A
	// slower stream takes less of a network and of etcd's disk, but for longer, and while
	// it is open etcd cannot reuse pages. If the cluster compacts during each stream, its
	// snapshots can no longer be compared and are all unconfirmed (compacted).
	MaxRate int64 `yaml:"max-rate" default:"0"`
	// RequestTimeout is how long a short request to a member may take.
	RequestTimeout time.Duration `yaml:"request-timeout" default:"5s"`
}

// Companions are files that a restore may need besides the data: certificates, settings,
// manifests of static pods.
type Companions struct {
	// Paths of files and folders on this host, at most 100, with 64 MiB and 1,000 files in all.
	Paths []string `yaml:"paths"`
	// From are files that start etcd, as of 'restore --from'. What they refer to is stored, too.
	From []string `yaml:"from"`
	// Secrets of Kubernetes, each as NAMESPACE/NAME, at most 100. They are read by their names alone.
	Secrets []string `yaml:"secrets"`
	// Kubeconfig says which API server has the Secrets, and who asks it. It is read again each time.
	// Without it that is the service account of the pod that backupd runs in.
	Kubeconfig string `yaml:"kubeconfig"`
	// Unencrypted allows to store them where snapshots are not encrypted.
	Unencrypted bool `yaml:"unencrypted" default:"false"`
}

// Verify says when stored snapshots are read back and verified as a whole.
type Verify struct {
	// Schedule is a cron line, like that of snapshots. Each time one snapshot is
	// verified: in turn the newest, if it was not yet, and the one that was read longest
	// ago. Without it a snapshot is verified only while it is taken.
	Schedule string `yaml:"schedule"`
	// MaxBytesPerDay is how many stored bytes scheduled verifications may read in a day
	// of UTC. The first one of a day may read more. 0 sets no limit.
	MaxBytesPerDay int64 `yaml:"max-bytes-per-day" default:"0"`
	// IdentityFiles hold the age secret keys that decrypt snapshots. Without them
	// only the stored bytes of encrypted snapshots are verified.
	IdentityFiles []string `yaml:"identity-files"`
}

// Retention says which snapshots are kept. A snapshot stays if any rule keeps it.
// Without a keep rule nothing is ever removed.
type Retention struct {
	// KeepLast keeps that many newest snapshots.
	KeepLast int `yaml:"keep-last" default:"0"`
	// KeepHourly keeps the newest snapshot of each of that many hours.
	KeepHourly int `yaml:"keep-hourly" default:"0"`
	// KeepDaily keeps the newest snapshot of each of that many days.
	KeepDaily int `yaml:"keep-daily" default:"0"`
	// KeepWeekly keeps the newest snapshot of each of that many weeks.
	KeepWeekly int `yaml:"keep-weekly" default:"0"`
	// KeepMonthly keeps the newest snapshot of each of that many months.
	KeepMonthly int `yaml:"keep-monthly" default:"0"`
	// KeepYearly keeps the newest snapshot of each of that many years.
	KeepYearly int `yaml:"keep-yearly" default:"0"`
	// KeepWithin keeps all snapshots that are younger.
	KeepWithin time.Duration `yaml:"keep-within" default:"0s"`
	// MinVerified is how many of the newest verified snapshots of each timeline
	// always stay, at least 1.
	MinVerified int `yaml:"min-verified" default:"3" min:"1"`
	// MinAge is the age below which no snapshot is removed.
	MinAge time.Duration `yaml:"min-age" default:"0s"`
	// MaxBytes is the maximum total size. The oldest snapshots are removed, even if
	// a keep rule matches, until the total fits; pins, min-verified and min-age
	// still apply. 0 sets no limit.
	MaxBytes int64 `yaml:"max-bytes" default:"0"`
	// FreezeFor is how long a timeline that is not accepted keeps all snapshots of
	// older timelines, from its first snapshot on. 0 means 720h.
	FreezeFor time.Duration `yaml:"freeze-for" default:"720h"`
	// TimeZone in which hours, days and weeks are counted.
	TimeZone string `yaml:"time-zone" default:"UTC"`
}

// Defragment says when members are defragmented: followers first, the leader
// last, and only while all members are healthy. It is off without a schedule.
type Defragment struct {
	// Schedule is a cron line, like that of snapshots.
	Schedule string `yaml:"schedule"`
	// Threshold is the part of a database file that must be free, 0 to 1.
	Threshold float64 `yaml:"threshold" default:"0.3"`
}

// Daemon holds the settings that are not of one cluster.
type Daemon struct {
	// Server is the HTTP API and metrics.
	Server Server `yaml:"server"`
	// Spool holds databases while they are received.
	Spool Spool `yaml:"spool"`
	// Concurrency is how many jobs receive, store, read or defragment a database at once. One
	// verification may run beside them.
	Concurrency int `yaml:"concurrency" default:"2" min:"1"`
	// Log is the form of log lines.
	Log Log `yaml:"log"`
	// Notifications are the receivers of events.
	Notifications []Notification `yaml:"notifications"`
}

// Server is the HTTP API and metrics.
type Server struct {
	// Listen is the address to listen on, or off. An address that is not loopback
	// needs a certificate, and tokens or client certificates.
	Listen string `yaml:"listen" default:"127.0.0.1:9387"`
	// CertFile is the server's certificate. With it the server speaks https only.
	CertFile string `yaml:"cert-file"`
	// KeyFile is the key of the server's certificate.
	KeyFile string `yaml:"key-file"`
	// MetricsListen is a second address. It answers /metrics, /healthz and /readyz alone, in
	// plain HTTP and without credentials, whoever can reach it.
	MetricsListen string `yaml:"metrics-listen"`
	// ClientCAFile holds CAs of client certificates. The callers say which may do anything.
	ClientCAFile string `yaml:"client-ca-file"`
	// ReadTokensFile holds bearer tokens for reading, one a line, at most two.
	ReadTokensFile string `yaml:"read-tokens-file"`
	// OperateTokensFile holds bearer tokens that also allow to start jobs and to
	// pin, one a line, at most two.
	OperateTokensFile string `yaml:"operate-tokens-file"`
	// AllowedHosts are names by which callers may address the server, besides those
	// that follow from listen.
	AllowedHosts []string `yaml:"allowed-hosts"`
	// Callers are those who may call, besides the holders of the tokens above.
	Callers []Caller `yaml:"callers"`
}

// Caller is known by a certificate or by a token.
type Caller struct {
	// Certificate is a name in a client certificate: its common name, or a DNS name, mail
	// address or URI among its alternative names.
	Certificate string `yaml:"certificate"`
	// TokensFile holds bearer tokens, one a line, at most two.
	TokensFile string `yaml:"tokens-file"`
	// Scope is what the caller may do. operate includes read.
	Scope string `yaml:"scope" default:"read" oneof:"read operate"`
	// Clusters are those that the caller may know of. The default is all.
	Clusters []string `yaml:"clusters"`
}

// Spool holds databases while they are received.
type Spool struct {
	// Folder for the local copies. The default is the system's temporary folder.
	Folder string `yaml:"folder"`
	// MaxBytes is the maximum size of all local copies. 0 sets no limit.
	MaxBytes int64 `yaml:"max-bytes" default:"0"`
	// MinFree is what stays free on the folder's file system for etcd and others: a size,
	// such as 3GiB, or a part, such as 20%. What waits is dropped before that is touched.
	// The default is the larger of 15% and 2GiB.
	MinFree string `yaml:"min-free"`
}

// Log is the form of log lines.
type Log struct {
	// Format of log lines.
	Format string `yaml:"format" default:"text" oneof:"text json"`
	// Level is the lowest level that is logged.
	Level string `yaml:"level" default:"info" oneof:"debug info warn error"`
}

// Notification is one receiver. Exactly one of webhook, slack, healthchecks and
// command is set.
type Notification struct {
	// Clusters whose events are sent. The default is all.
	Clusters []string `yaml:"clusters"`
	// On lists the kinds of events: failure, recovery, prune-failure, new-history,
	// certificate-expiring, success, start. The default is all but success and start;
	// for healthchecks it is all but prune-failure and certificate-expiring, which it
	// cannot get.
	On []string `yaml:"on" oneof:"failure recovery prune-failure new-history certificate-expiring success start"`
	// Webhook gets a POST of JSON.
	Webhook *Webhook `yaml:"webhook"`
	// Slack is an incoming webhook of Slack, or of a service that reads its messages.
	Slack *Slack `yaml:"slack"`
	// Healthchecks is a ping URL of one cluster: URL/start, URL and URL/fail are called.
	Healthchecks *Healthchecks `yaml:"healthchecks"`
	// Command is a program that is run.
	Command *Command `yaml:"command"`
}

// Command is a program that is run, without a shell.
type Command struct {
	// Program is the path of the program, or its name if it is in PATH.
	Program string `yaml:"program" required:"true"`
	// Args are its arguments. They are never shown.
	Args []Secret `yaml:"args"`
	// Env holds the variables of its environment, besides PATH and those that tell the
	// event. It gets no other variable of the daemon. The values are never shown.
	Env map[string]Secret `yaml:"env"`
}

// Webhook gets a POST of JSON.
type Webhook struct {
	// URL to call.
	URL Secret `yaml:"url"`
	// URLFile holds the URL, if it is a secret.
	URLFile string `yaml:"url-file"`
	// Template is a Go text/template of the body. Its function json writes any value
	// as JSON. The default body is the event as JSON.
	Template string `yaml:"template"`
	// BearerTokenFile holds a bearer token that is sent with the request.
	BearerTokenFile string `yaml:"bearer-token-file"`
	// CAFile holds CAs that are trusted instead of the system's.
	CAFile string `yaml:"ca-file"`
}

// Slack is an incoming webhook of Slack, or of a service that reads its messages.
type Slack struct {
	// URL to call. It is a secret.
	URL Secret `yaml:"url"`
	// URLFile holds the URL.
	URLFile string `yaml:"url-file"`
	// CAFile holds CAs that are trusted instead of the system's.
	CAFile string `yaml:"ca-file"`
}

// Healthchecks is a ping URL.
type Healthchecks struct {
	// URL to call. It is a secret.
	URL Secret `yaml:"url"`
	// URLFile holds the URL.
	URLFile string `yaml:"url-file"`
	// CAFile holds CAs that are trusted instead of the system's.
	CAFile string `yaml:"ca-file"`
}
