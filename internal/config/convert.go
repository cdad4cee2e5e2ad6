package config

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/location"
	"github.com/etcd-backupd/backupd/internal/retention"
	"github.com/etcd-backupd/backupd/internal/schedule"
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
		RequestTimeout:     c.Snapshot.RequestTimeout,
		StallTimeout:       c.Snapshot.StallTimeout,
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

// Line returns the parsed schedule.
func (s *Snapshot) Line() (schedule.Line, error) { return schedule.Parse(s.Schedule, time.UTC) }

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
		FreezeFor: r.FreezeFor, CountUnconfirmed: !c.Snapshot.HashCheck,
	}
}
