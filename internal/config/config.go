// Package config reads the daemon's one YAML file, strictly, and turns it into
// the typed options of the packages it configures.
//
// The types of this file are the file's keys. Their comments and tags are the
// only place where a key is described: the JSON Schema and the tables of
// docs/configuration.md are made from them.
package config

import (
	"log/slog"
	"time"

	"github.com/etcd-backupd/backupd/internal/location"
)

// Config is the whole file. Keys are kebab-case, as etcd's own.
type Config struct {
	// Repositories by the names that clusters call them by.
	Repositories map[string]Repository `yaml:"repositories" required:"yes"`
	// Clusters to guard.
	Clusters []Cluster `yaml:"clusters" required:"yes"`
	// Daemon is what is not of one cluster.
	Daemon Daemon `yaml:"daemon"`

	source *source // what was parsed, to point at
}

// Secret is a text that must not be shown: it prints as a mask. Convert it to a
// string to use it.
type Secret string

const mask = "***"

// String returns a mask, or nothing for an empty secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return mask
}

// GoString returns what String does, for %#v.
func (s Secret) GoString() string { return s.String() }

// MarshalText returns what String does, for JSON and whatever else encodes.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue returns what String does.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// Repository is where snapshots are kept, and how they are encoded.
type Repository struct {
	// URL of the repository: file:///path or s3://bucket/prefix.
	URL string `yaml:"url" required:"yes"`
	// Options has the keys that say how to reach the store: s3.
	location.Options
	// Compression of new snapshots.
	Compression string `yaml:"compression" default:"zstd" oneof:"zstd none"`
	// Recipients are the age public keys (age1..., age1pq1...) that new snapshots
	// are encrypted to. Without any they are not encrypted.
	Recipients []string `yaml:"recipients"`
	// RecipientsFiles hold more recipients, one a line.
	RecipientsFiles []string `yaml:"recipients-files"`
}

// Cluster is one etcd cluster to guard.
type Cluster struct {
	// Name of the cluster, which is its folder in the repository: 1 to 63 letters,
	// digits, dots, dashes and underscores.
	Name string `yaml:"name" required:"yes"`
	// Endpoints are the client URLs of its members. Name all of them: the best one
	// is chosen for each snapshot.
	Endpoints []string `yaml:"endpoints" required:"yes"`
	// TLS names the files for endpoints with https.
	TLS TLS `yaml:"tls"`
	// User of etcd, where auth is enabled. It needs the role root.
	User string `yaml:"user"`
	// PasswordFile holds the user's password.
	PasswordFile string `yaml:"password-file"`
	// Repository is the name of the one this cluster's snapshots go to. It may be
	// left out where there is only one.
	Repository string `yaml:"repository"`
	// LocalEndpoint makes this daemon the sidecar of the member behind it: it
	// works only in the slots that are that member's.
	LocalEndpoint string `yaml:"local-endpoint"`
	// Snapshot says when and how snapshots are taken.
	Snapshot Snapshot `yaml:"snapshot" required:"yes"`
	// Verify says when the newest snapshot is verified again.
	Verify Verify `yaml:"verify"`
	// Retention says which snapshots are kept.
	Retention Retention `yaml:"retention"`
	// Defragment says when members are defragmented.
	Defragment Defragment `yaml:"defragment"`
	// Labels are passed on with notifications and by the API.
	Labels map[string]string `yaml:"labels"`
}

// TLS names the files of a client; they are read again when they change.
type TLS struct {
	// CAFile holds the CAs that the members' certificates are verified against.
	CAFile string `yaml:"ca-file"`
	// CertFile is the client certificate.
	CertFile string `yaml:"cert-file"`
	// KeyFile is its key.
	KeyFile string `yaml:"key-file"`
	// InsecureSkipVerify takes any certificate for a member's. Whoever answers
	// first could then hand over any database.
	InsecureSkipVerify bool `yaml:"insecure-skip-verify"`
}

// Snapshot says when and how snapshots are taken.
type Snapshot struct {
	// Schedule is a cron line of five fields, or six with seconds in front, or
	// @hourly, @daily, @every 6h and the like. It means UTC unless CRON_TZ=ZONE
	// stands before it.
	Schedule string `yaml:"schedule" required:"yes"`
	// Jitter delays each run by a random part of it, at most.
	Jitter time.Duration `yaml:"jitter" default:"0s"`
	// MaxAge forces a snapshot although the revision has not moved since the last
	// verified one. 0s takes one in every slot.
	MaxAge time.Duration `yaml:"max-age" default:"24h"`
	// Timeout bounds one run with its retries.
	Timeout time.Duration `yaml:"timeout" default:"2h"`
	// Retries is how often a failed run is tried again in its slot.
	Retries int `yaml:"retries" default:"3"`
	// HashCheck compares HashKV with the voting members.
	HashCheck bool `yaml:"hash-check" default:"true"`
	// StallTimeout is how long a stream may bring no bytes before another member
	// is asked.
	StallTimeout time.Duration `yaml:"stall-timeout" default:"30s"`
	// RequestTimeout is how long a short request to a member may take.
	RequestTimeout time.Duration `yaml:"request-timeout" default:"5s"`
}

// Verify says when the newest snapshot is read back and verified as a whole.
type Verify struct {
	// Schedule is a cron line, as that of snapshots. Without it nothing is verified
	// beyond what every backup does.
	Schedule string `yaml:"schedule"`
	// IdentityFiles hold the age secret keys that decrypt snapshots. Without them
	// only the stored bytes of encrypted snapshots are compared.
	IdentityFiles []string `yaml:"identity-files"`
}

// Retention says which snapshots are kept. A snapshot stays if any rule keeps
// it. Nothing is ever removed where none of the keep rules is given.
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
	// KeepWithin keeps everything younger.
	KeepWithin time.Duration `yaml:"keep-within" default:"0s"`
	// MinVerified newest verified snapshots always stay. At least 1.
	MinVerified int `yaml:"min-verified" default:"3" min:"1"`
	// MinAge is how old a snapshot must be to go.
	MinAge time.Duration `yaml:"min-age" default:"0s"`
	// MaxBytes is a limit of stored data: what the keep rules keep goes too, the
	// oldest first, until it is met. It never beats min-verified. 0 is no limit.
	MaxBytes int64 `yaml:"max-bytes" default:"0"`
	// TimeZone that hours, days and weeks are counted in.
	TimeZone string `yaml:"time-zone" default:"UTC"`
}

// Defragment says when members are defragmented: followers first, the leader
// last, and only while all members are healthy. It is off without a schedule.
type Defragment struct {
	// Schedule is a cron line, as that of snapshots.
	Schedule string `yaml:"schedule"`
	// Threshold is the part of a database file that must be free, 0 to 1.
	Threshold float64 `yaml:"threshold" default:"0.3"`
}

// Daemon is what is not of one cluster.
type Daemon struct {
	// Server is the HTTP API and metrics.
	Server Server `yaml:"server"`
	// Spool is where databases are received.
	Spool Spool `yaml:"spool"`
	// Concurrency is how many clusters are backed up at once.
	Concurrency int `yaml:"concurrency" default:"2" min:"1"`
	// Log says how log lines look.
	Log Log `yaml:"log"`
	// Notifications are the receivers of news.
	Notifications []Notification `yaml:"notifications"`
}

// Server is the HTTP API and metrics.
type Server struct {
	// Listen is the address to listen at, or off. Other than at a loopback address
	// it needs a certificate, and tokens or client certificates.
	Listen string `yaml:"listen" default:"127.0.0.1:9387"`
	// CertFile is the server's certificate. With it the server speaks https only.
	CertFile string `yaml:"cert-file"`
	// KeyFile is its key.
	KeyFile string `yaml:"key-file"`
	// ClientCAFile holds CAs: whoever has a client certificate signed by one of
	// them may do everything.
	ClientCAFile string `yaml:"client-ca-file"`
	// ReadTokensFile holds bearer tokens that may read, one a line, at most two.
	ReadTokensFile string `yaml:"read-tokens-file"`
	// OperateTokensFile holds bearer tokens that may also start jobs and pin, one a
	// line, at most two.
	OperateTokensFile string `yaml:"operate-tokens-file"`
	// AllowedHosts are names the server is called by, besides those that the
	// listener implies.
	AllowedHosts []string `yaml:"allowed-hosts"`
}

// Spool is where databases are received.
type Spool struct {
	// Folder for the local copies. By default it is the system's temporary folder.
	Folder string `yaml:"folder"`
	// MaxBytes is a limit of what may lie there. 0 is no limit.
	MaxBytes int64 `yaml:"max-bytes" default:"0"`
}

// Log says how log lines look.
type Log struct {
	// Format of log lines.
	Format string `yaml:"format" default:"text" oneof:"text json"`
	// Level is the least one to log.
	Level string `yaml:"level" default:"info" oneof:"debug info warn error"`
}

// Notification is one receiver. Exactly one of webhook, slack, healthchecks and
// command is set.
type Notification struct {
	// Clusters the receiver is told of. By default it is all.
	Clusters []string `yaml:"clusters"`
	// On lists the kinds of news: failure, recovery, success, start. By default it
	// is failure and recovery, and for healthchecks all.
	On []string `yaml:"on" oneof:"failure recovery success start"`
	// Webhook gets a POST of JSON.
	Webhook *Webhook `yaml:"webhook"`
	// Slack is an incoming webhook of Slack, or of what understands its messages.
	Slack *Slack `yaml:"slack"`
	// Healthchecks is a ping URL: URL/start, URL and URL/fail are called.
	Healthchecks *Healthchecks `yaml:"healthchecks"`
	// Command is a program with its arguments.
	Command []string `yaml:"command"`
}

// Webhook gets a POST of JSON.
type Webhook struct {
	// URL to call.
	URL Secret `yaml:"url"`
	// URLFile holds the URL, where that is a secret.
	URLFile string `yaml:"url-file"`
	// Template is a Go text/template of the body; its function json writes any value
	// as JSON. By default the body is the event as JSON.
	Template string `yaml:"template"`
	// BearerTokenFile holds a token to send along.
	BearerTokenFile string `yaml:"bearer-token-file"`
}

// Slack is an incoming webhook of Slack, or of what understands its messages.
type Slack struct {
	// URL to call. It is a secret.
	URL Secret `yaml:"url"`
	// URLFile holds the URL.
	URLFile string `yaml:"url-file"`
}

// Healthchecks is a ping URL.
type Healthchecks struct {
	// URL to call. It is a secret.
	URL Secret `yaml:"url"`
	// URLFile holds the URL.
	URLFile string `yaml:"url-file"`
}
