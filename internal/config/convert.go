package config

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/companion"
	"github.com/etcd-backupd/backupd/internal/disk"
	"github.com/etcd-backupd/backupd/internal/location"
	"github.com/etcd-backupd/backupd/internal/retention"
	"github.com/etcd-backupd/backupd/internal/schedule"
	"github.com/etcd-backupd/backupd/internal/snapshot/compare"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// ClientConfig says how to reach the cluster. Package cluster reads the files in
// it, and reads them again when they change. ClientConfig checks that the password
// can be read now.
func (c *Cluster) ClientConfig() (cluster.Config, error) {
	conf := cluster.Config{
		Endpoints: c.Endpoints,
		CAFile:    c.TLS.CAFile, CertFile: c.TLS.CertFile, KeyFile: c.TLS.KeyFile,
		InsecureSkipVerify: c.TLS.InsecureSkipVerify,
		InsecureTransport:  true, // an endpoint without a scheme has TLS if tls is given
		Username:           c.User,
		PasswordFile:       c.PasswordFile,
		TokenFile:          c.TokenFile,
		DiscoverySRV:       c.DiscoverySRV,
		DiscoverySRVName:   c.DiscoverySRVName,
		InsecureDiscovery:  c.TLS == TLS{},
		RequestTimeout:     c.Snapshot.RequestTimeout,
		StallTimeout:       c.Snapshot.StallTimeout,
		MaxRate:            c.Snapshot.MaxRate,
	}
	if c.PasswordFile == "" {
		return conf, nil
	}
	if _, err := readPassword(c.PasswordFile); err != nil {
		return cluster.Config{}, fmt.Errorf("cluster %s: password file %s: %w", c.Name, c.PasswordFile, err)
	}
	return conf, nil
}

// maxSecretBytes bounds a file that holds one secret.
const maxSecretBytes = 64 << 10

func readPassword(path string) (string, error) {
	raw, err := readFile(path, maxSecretBytes)
	if err != nil {
		return "", err
	}
	return cluster.ParsePassword(raw)
}

// Open returns the repository's store. It connects to nothing.
func (r *Repository) Open(ctx context.Context, log *slog.Logger) (storage.Store, error) {
	o := r.Options
	o.Logger = log
	return location.Open(ctx, r.URL, o)
}

// Codec says how new snapshots are encoded. It reads the recipients files.
func (r *Repository) Codec() (codec.Options, error) {
	compression, err := codec.ParseCompression(r.Compression)
	if err != nil {
		return codec.Options{}, err
	}
	recipients, err := codec.ParseRecipients(r.Recipients, r.RecipientsFiles)
	if err != nil {
		return codec.Options{}, err
	}
	return codec.Options{Compress: compression, Recipients: recipients}, nil
}

// Encrypts reports whether new snapshots are encrypted. It reads no file.
func (r *Repository) Encrypts() bool { return len(r.Recipients)+len(r.RecipientsFiles) > 0 }

// Line returns the parsed schedule.
func (s *Snapshot) Line() (schedule.Line, error) { return schedule.Parse(s.Schedule, time.UTC) }

// Hashes returns with how many members snapshots are compared. [Parse] has checked the
// word; an unknown one means one.
func (s *Snapshot) Hashes() compare.Policy {
	p, _ := compare.ParsePolicy(s.HashCheck)
	return p
}

// Line returns the parsed schedule. Without one it returns the zero Line, which has
// no times.
func (v *Verify) Line() (schedule.Line, error) { return parseOptional(v.Schedule) }

// Line returns the parsed schedule. Without one it returns the zero Line, which has
// no times.
func (d *Defragment) Line() (schedule.Line, error) { return parseOptional(d.Schedule) }

func parseOptional(line string) (schedule.Line, error) {
	if line == "" {
		return schedule.Line{}, nil
	}
	return schedule.Parse(line, time.UTC)
}

// Policy returns the rules for package retention. [Parse] has checked the time
// zone; an unknown one means UTC.
func (c *Cluster) Policy() retention.Policy {
	r := &c.Retention
	location, err := time.LoadLocation(r.TimeZone)
	if err != nil {
		location = time.UTC
	}
	return retention.Policy{
		Last: r.KeepLast, Hourly: r.KeepHourly, Daily: r.KeepDaily, Weekly: r.KeepWeekly,
		Monthly: r.KeepMonthly, Yearly: r.KeepYearly,
		Within: r.KeepWithin, MinVerified: r.MinVerified, MinAge: r.MinAge, MaxBytes: r.MaxBytes, Location: location,
		FreezeFor: r.FreezeFor, CountUnconfirmed: c.Snapshot.Hashes() == compare.Off,
	}
}

// Reserve returns what stays free on the file system of the spool.
func (s *Spool) Reserve() disk.Reserve {
	r, err := disk.ParseReserve(s.MinFree)
	if err != nil { // Load has refused it; the default is the safe side
		return disk.Reserve{}
	}
	return r
}

// CompanionFiles returns what is stored with each snapshot. trace finds what files that start etcd
// refer to.
func (c *Cluster) CompanionFiles(trace companion.Trace) companion.Files {
	return companion.Of(companion.Files{
		Paths: c.Companions.Paths, From: c.Companions.From, Trace: trace,
		Secrets: c.Companions.Secrets, Kubeconfig: c.Companions.Kubeconfig,
	})
}

// Members returns how many members the cluster may have: as many as it has endpoints. How
// many SRV records name is not known before.
func (c *Cluster) Members() int {
	if c.DiscoverySRV != "" {
		return 7 // more is no good idea
	}
	return len(c.Endpoints)
}

// Endpoints returns the endpoints of all clusters.
func (c *Config) Endpoints() []string {
	var out []string
	for i := range c.Clusters {
		out = append(out, c.Clusters[i].Endpoints...)
	}
	return out
}
