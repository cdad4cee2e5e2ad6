// Package config reads the daemon's one YAML file, strictly, and turns it into
// the typed options of the packages it configures.
package config

import (
	"time"
)

// Config is the whole file. Keys are kebab-case, as etcd's own.
type Config struct {
	// Repositories by name.
	Repositories map[string]Repository `yaml:"repositories"`
	Clusters     []Cluster             `yaml:"clusters"`
	Daemon       Daemon                `yaml:"daemon"`
}

// Repository is where snapshots are kept, and how they are encoded.
type Repository struct {
	URL string `yaml:"url"` // file:///path or s3://bucket/prefix
	S3  S3     `yaml:"s3"`
	// Compression of new snapshots: zstd (default) or none.
	Compression string `yaml:"compression"`
	// Recipients are age public keys; RecipientsFiles hold one a line.
	Recipients      []string `yaml:"recipients"`
	RecipientsFiles []string `yaml:"recipients-files"`
}

// S3 says how to reach a bucket; what is not said comes from the AWS SDK's own
// sources.
type S3 struct {
	Endpoint        string `yaml:"endpoint"`
	Region          string `yaml:"region"`
	PathStyle       string `yaml:"path-style"` // on, off
	CAFile          string `yaml:"ca-file"`
	CredentialsFile string `yaml:"credentials-file"`
	Profile         string `yaml:"profile"`
	StorageClass    string `yaml:"storage-class"`
	SSE             string `yaml:"sse"` // AES256, aws:kms
	SSEKMSKeyID     string `yaml:"sse-kms-key-id"`
	SSECKeyFile     string `yaml:"sse-c-key-file"`
	Checksum        string `yaml:"checksum"` // auto, sha256, md5, none
}

// Cluster is one etcd cluster to guard.
type Cluster struct {
	Name      string   `yaml:"name"`
	Endpoints []string `yaml:"endpoints"`
	TLS       TLS      `yaml:"tls"`
	// User needs the role root. Its password comes from a file.
	User         string `yaml:"user"`
	PasswordFile string `yaml:"password-file"`
	// Repository may be left out where there is only one.
	Repository string `yaml:"repository"`
	// LocalEndpoint makes this daemon the sidecar of the member behind it: it
	// works only in the slots that are that member's.
	LocalEndpoint string            `yaml:"local-endpoint"`
	Snapshot      Snapshot          `yaml:"snapshot"`
	Verify        Verify            `yaml:"verify"`
	Retention     Retention         `yaml:"retention"`
	Defragment    Defragment        `yaml:"defragment"`
	Labels        map[string]string `yaml:"labels"`
}

// TLS names the files of a client; they are read again when they change.
type TLS struct {
	CAFile             string `yaml:"ca-file"`
	CertFile           string `yaml:"cert-file"`
	KeyFile            string `yaml:"key-file"`
	InsecureSkipVerify bool   `yaml:"insecure-skip-verify"`
}

// Snapshot says when and how snapshots are taken.
type Snapshot struct {
	Schedule string `yaml:"schedule"` // a cron line; required
	// Jitter delays each run by a random part of it, at most.
	Jitter time.Duration `yaml:"jitter"`
	// MaxAge forces a snapshot although the revision has not moved since the
	// last verified one. Default 24h. 0 takes one in every slot.
	MaxAge time.Duration `yaml:"max-age"`
	// Timeout bounds one run with its retries. Default 2h.
	Timeout time.Duration `yaml:"timeout"`
	// Retries is how often a failed run is tried again in its slot. Default 3.
	Retries int `yaml:"retries"`
	// HashCheck compares HashKV with the members. Default true.
	HashCheck bool `yaml:"hash-check"`
	// StallTimeout and RequestTimeout are those of the command line.
	StallTimeout   time.Duration `yaml:"stall-timeout"`
	RequestTimeout time.Duration `yaml:"request-timeout"`
}

// Verify says when the newest snapshot is read back and verified as a whole.
// Without a schedule it never is; without an identity only stored bytes are
// compared where snapshots are encrypted.
type Verify struct {
	Schedule      string   `yaml:"schedule"`
	IdentityFiles []string `yaml:"identity-files"`
}

// Retention says which snapshots are kept. Nothing is ever removed where
// none of the keep rules is given.
type Retention struct {
	KeepLast    int           `yaml:"keep-last"`
	KeepHourly  int           `yaml:"keep-hourly"`
	KeepDaily   int           `yaml:"keep-daily"`
	KeepWeekly  int           `yaml:"keep-weekly"`
	KeepMonthly int           `yaml:"keep-monthly"`
	KeepYearly  int           `yaml:"keep-yearly"`
	KeepWithin  time.Duration `yaml:"keep-within"`
	// MinVerified newest verified snapshots always stay. Default 3.
	MinVerified int `yaml:"min-verified"`
	// MinAge is how old a snapshot must be to go.
	MinAge time.Duration `yaml:"min-age"`
	// MaxBytes of stored data; 0 is no limit. Never beats MinVerified.
	MaxBytes int64 `yaml:"max-bytes"`
	// TimeZone days and hours are counted in. Default UTC.
	TimeZone string `yaml:"time-zone"`
}

// Defragment is off without a schedule.
type Defragment struct {
	Schedule string `yaml:"schedule"`
	// Threshold is the part of the database file that must be free, 0 to 1.
	// Default 0.3.
	Threshold float64 `yaml:"threshold"`
}

// Daemon is what is not of one cluster.
type Daemon struct {
	Server Server `yaml:"server"`
	Spool  Spool  `yaml:"spool"`
	// Concurrency is how many clusters are backed up at once. Default 2.
	Concurrency   int            `yaml:"concurrency"`
	Log           Log            `yaml:"log"`
	Notifications []Notification `yaml:"notifications"`
}

// Server is the HTTP API and metrics.
type Server struct {
	Listen       string `yaml:"listen"` // default 127.0.0.1:9387; "" with off
	CertFile     string `yaml:"cert-file"`
	KeyFile      string `yaml:"key-file"`
	ClientCAFile string `yaml:"client-ca-file"` // client certificates signed by it may do everything
	// Token files hold bearer tokens, one a line, at most two.
	ReadTokensFile    string `yaml:"read-tokens-file"`
	OperateTokensFile string `yaml:"operate-tokens-file"`
	// AllowedHosts besides those the listener implies.
	AllowedHosts []string `yaml:"allowed-hosts"`
}

// Spool is where databases are received.
type Spool struct {
	Folder   string `yaml:"folder"` // default: the system's temporary folder
	MaxBytes int64  `yaml:"max-bytes"`
}

// Log says how log lines look.
type Log struct {
	Format string `yaml:"format"` // text, json
	Level  string `yaml:"level"`
}

// Notification is one receiver. Exactly one of Webhook, Slack, Healthchecks
// and Command is set.
type Notification struct {
	// Clusters the receiver is told of; empty means all.
	Clusters []string `yaml:"clusters"`
	// On lists the kinds of events: failure, recovery, success, start.
	// Default: failure and recovery; of healthchecks all.
	On           []string      `yaml:"on"`
	Webhook      *Webhook      `yaml:"webhook"`
	Slack        *Slack        `yaml:"slack"`
	Healthchecks *Healthchecks `yaml:"healthchecks"`
	Command      []string      `yaml:"command"`
}

// Webhook gets a POST of JSON.
type Webhook struct {
	URL     string `yaml:"url"`
	URLFile string `yaml:"url-file"`
	// Template is a Go text/template of the body; default: the event as JSON.
	Template        string `yaml:"template"`
	BearerTokenFile string `yaml:"bearer-token-file"`
}

// Slack is an incoming webhook of Slack or of what understands its messages.
type Slack struct {
	URL     string `yaml:"url"`
	URLFile string `yaml:"url-file"`
}

// Healthchecks is a ping URL: URL/start, URL and URL/fail are called.
type Healthchecks struct {
	URL     string `yaml:"url"`
	URLFile string `yaml:"url-file"`
}
