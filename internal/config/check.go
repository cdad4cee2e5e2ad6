package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/cluster/endpoint"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/companion"
	"github.com/etcd-backupd/backupd/internal/config/strict"
	"github.com/etcd-backupd/backupd/internal/location"
	"github.com/etcd-backupd/backupd/internal/schedule"
	"github.com/etcd-backupd/backupd/internal/secret"
	"github.com/etcd-backupd/backupd/internal/storage/s3"
)

// check finds mistakes that the types allow: impossible values, and values that do
// not fit together.
func check(d *strict.Decoder, c *Config) {
	eachPath(c, func(path, value string) {
		if !d.Usable(path) || filepath.IsAbs(value) {
			return
		}
		if secret.Holds(value) || strings.ContainsAny(value, "\r\n") {
			d.Hide(path)
			d.Add(path, "this is a secret, and not the name of a file that holds it")
			return
		}
		d.Add(path, "%q is a relative path: want an absolute one", value)
	})
	for _, name := range sortedKeys(c.Repositories) {
		r := c.Repositories[name]
		if path := "repositories." + name; !d.Failed(path) {
			checkRepository(d, path, name, &r)
		}
	}
	names := map[string]string{}
	for i := range c.Clusters {
		path := fmt.Sprintf("clusters[%d]", i)
		cluster := &c.Clusters[i]
		if d.Failed(path) {
			continue
		}
		checkCluster(d, path, cluster)
		if first := names[cluster.Name]; first != "" && cluster.Name != "" {
			d.Add(path+".name", "%q is already the name of %s, in line %d: every cluster needs its own",
				cluster.Name, first, d.Line(first+".name"))
		} else {
			names[cluster.Name] = path
		}
		chooseRepository(d, path, c, cluster)
		checkCompanions(d, path+".companions", c, cluster)
	}
	checkNames(d, c)
	checkPlaces(d, c)
	checkDaemon(d, c)
}

func checkRepository(d *strict.Decoder, path, name string, r *Repository) {
	if err := backup.CheckClusterName(name); err != nil {
		d.Add(path, "%s", strings.Replace(err.Error(), "cluster name", "repository name", 1))
	}
	loc, err := location.Parse(r.URL)
	switch {
	case !d.Usable(path + ".url"):
	case errors.Is(err, location.ErrCredentials):
		d.Hide(path + ".url")
		d.Add(path+".url", "the URL must not hold credentials: use s3.credentials-file, or AWS_* variables")
	case errors.Is(err, location.ErrSettings):
		d.Hide(path + ".url")
		d.Add(path+".url", "the URL of a bucket has no settings after ?: they are keys in s3")
	case err != nil:
		d.Add(path+".url", "%v", err)
	case strings.ContainsAny(loc.Bucket, "\\ #"):
		d.Add(path+".url", "%q is not the name of a bucket", loc.Bucket)
	case loc.Unused(r.Options) != "":
		section := loc.Unused(r.Options)
		place, want := "in a folder", "s3://bucket/prefix"
		if section == "file" {
			place, want = "in a bucket", "file:///path"
		}
		d.Add(path+"."+section, "has no effect on a repository %s: remove it, or make the URL %s", place, want)
	}
	if at := path + ".file.min-free"; !d.Failed(at) {
		if _, err := r.File.Reserve(); err != nil {
			d.Add(at, "%v", err)
		}
	}
	if d.Usable(path+".repository-id") && r.ID != "" && len(r.ID) < backup.MinRepositoryID {
		d.Add(path+".repository-id", "%q is too short for an id: 'backupd init' prints it", r.ID)
	}
	if r.ID != "" && r.CreateIfMissing {
		d.Add(path+".create-if-missing", "excludes repository-id: a repository that is known is never made again")
	}
	checkS3(d, path+".s3", &r.S3)
	for i, key := range r.Recipients {
		at := fmt.Sprintf("%s.recipients[%d]", path, i)
		if _, err := codec.ParseRecipients([]string{key}, nil); err != nil && !d.Failed(at) {
			d.Hide(at) // it may be a secret key
			d.Add(at, "this is not an age public key: want age1... or age1pq1...")
		}
	}
	if _, err := codec.ParseRecipients(r.Recipients, nil); err != nil && !d.Reported(path+".recipients") {
		d.Add(path+".recipients", "%v", err)
	}
}

func checkS3(d *strict.Decoder, path string, s *s3.Options) {
	if d.Usable(path + ".endpoint") {
		text := s.Endpoint
		if !strings.Contains(text, "://") {
			text = "https://" + text
		}
		if err := checkURL(text, "http", "https"); err != nil {
			d.Hide(path + ".endpoint")
			d.Add(path+".endpoint", "%v", err)
		} else if d.Given(path+".sse-c-key-file") && strings.HasPrefix(text, "http://") {
			d.Add(path+".sse-c-key-file", "the customer key would be sent unencrypted: it needs an endpoint with https://")
		}
	}
	if d.Given(path+".sse-kms-key-id") && s.SSE != "aws:kms" {
		d.Add(path+".sse-kms-key-id", "needs sse: aws:kms")
	}
	if d.Given(path+".sse-c-key-file") && d.Given(path+".sse") {
		d.Add(path+".sse-c-key-file", "a customer key and sse exclude each other: choose one")
	}
}

// checkURL returns an error for a bad URL. The error does not quote the URL, which
// may hold a secret.
func checkURL(text string, schemes ...string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil && secret.InAddress(text):
		return errors.New("the URL must not hold a user or a password")
	case err != nil:
		var urlErr *url.Error
		if errors.As(err, &urlErr) {
			err = urlErr.Err
		}
		return fmt.Errorf("this is not a URL: %w", err)
	case !slices.Contains(schemes, u.Scheme):
		return fmt.Errorf("want a URL that begins with %s://", strings.Join(schemes, ":// or "))
	case u.Host == "" || u.Hostname() == "":
		return errors.New("the URL names no host")
	case u.User != nil:
		return errors.New("the URL must not hold a user or a password")
	}
	return nil
}

func checkCluster(d *strict.Decoder, path string, c *Cluster) {
	if d.Usable(path + ".name") {
		if err := backup.CheckClusterName(c.Name); err != nil {
			d.Add(path+".name", "%v", err)
		}
	}
	seen := map[string]bool{}
	for i, ep := range c.Endpoints {
		at := fmt.Sprintf("%s.endpoints[%d]", path, i)
		checkEndpoint(d, at, ep, c.TLS != (TLS{}))
		if seen[ep] && d.Usable(at) {
			d.Add(at, "is listed twice")
		}
		seen[ep] = true
	}
	checkDiscovery(d, path, c)
	if d.Given(path + ".local-endpoint") {
		checkEndpoint(d, path+".local-endpoint", c.LocalEndpoint, c.TLS != (TLS{}))
	}
	both(d, path+".tls", "cert-file", "key-file")
	if c.TLS.InsecureSkipVerify && d.Given(path+".tls.ca-file") {
		d.Add(path+".tls.insecure-skip-verify", "excludes ca-file: certificates are either verified or not")
	}
	both(d, path, "user", "password-file")
	if d.Given(path+".token-file") && d.Given(path+".user") {
		d.Add(path+".token-file", "excludes user: a client logs in with the one or the other")
	}
	checkTimes(d, path, c)
	if c.Verify.MaxBytesPerDay > 0 && c.Verify.Schedule == "" && d.Usable(path+".verify.schedule") {
		d.Add(path+".verify.max-bytes-per-day", "has no effect without verify.schedule")
	}
	checkRetention(d, path+".retention", &c.Retention)
	for name := range c.Labels {
		if name == "" {
			d.Add(path+".labels", "a label has no name")
		}
	}
}

func checkCompanions(d *strict.Decoder, path string, c *Config, cluster *Cluster) {
	these := &cluster.Companions
	for key, err := range map[string]error{
		".paths": companion.CheckPaths(these.Paths), ".from": companion.CheckPaths(these.From),
		".secrets": companion.CheckSecrets(these.Secrets),
	} {
		if err != nil {
			d.Add(path+key, "%v", err)
		}
	}
	if these.Kubeconfig != "" && len(these.Secrets) == 0 {
		d.Add(path+".kubeconfig", "has no effect without secrets")
	}
	r := c.Repositories[cluster.Repository]
	if len(these.Paths)+len(these.From)+len(these.Secrets) > 0 && !r.Encrypts() && !these.Unencrypted {
		d.Add(path, "these files may be keys, and repository %s is not encrypted: give it recipients, or set "+
			"unencrypted: true here", cluster.Repository)
	}
}

// checkDiscovery checks that a cluster is found in one way.
func checkDiscovery(d *strict.Decoder, path string, c *Cluster) {
	srv := path + ".discovery-srv"
	switch {
	case d.Given(srv) && d.Given(path+".endpoints"):
		d.Add(srv, "excludes endpoints: the records of the domain name them")
	case d.Usable(srv) && c.DiscoverySRV != "" && strings.ContainsAny(c.DiscoverySRV, ":/@ "):
		d.Hide(srv)
		d.Add(srv, "this is no domain: want for example example.com")
	case !d.Given(srv) && len(c.Endpoints) == 0 && !d.Failed(path+".endpoints"):
		d.Add(path+".endpoints", "is missing")
	}
	if d.Given(path+".discovery-srv-name") && !d.Given(srv) {
		d.Add(path+".discovery-srv-name", "needs discovery-srv too")
	}
}

// both reports a problem if only one of two keys is given that need each other.
func both(d *strict.Decoder, path, a, b string) {
	a, b = path+"."+a, path+"."+b
	for _, p := range [][2]string{{a, b}, {b, a}} {
		if d.Given(p[0]) && !d.Given(p[1]) {
			d.Add(p[0], "needs %s too", p[1][strings.LastIndex(p[1], ".")+1:])
		}
	}
}

func checkEndpoint(d *strict.Decoder, path, ep string, tls bool) {
	if d.Failed(path) {
		return
	}
	scheme, rest, ok := strings.Cut(ep, "://")
	switch {
	case ok && (scheme == "unix" || scheme == "unixs"):
		if rest == "" {
			d.Add(path, "the endpoint names no socket")
		}
	case ok:
		if err := checkURL(ep, "http", "https"); err != nil {
			d.Hide(path)
			d.Add(path, "%v", err)
			return
		}
		u, _ := url.Parse(ep) // checkURL has
		switch {
		case endpoint.More(ep):
			d.Hide(path)
			d.Add(path, "%v", endpoint.ErrMore)
		case u.Port() == "":
			d.Add(path, "%q: want an endpoint such as https://10.0.0.1:2379, with its port", ep)
		}
	case strings.Contains(ep, "@"):
		d.Hide(path)
		d.Add(path, "the endpoint must not hold a user or a password")
	case endpoint.More(ep):
		d.Hide(path)
		d.Add(path, "%v", endpoint.ErrMore)
	default:
		if err := checkHostPort(ep); err != nil {
			d.Add(path, "%v: want an endpoint such as https://10.0.0.1:2379", err)
		}
	}
	if ok && (scheme == "http" || scheme == "unix") && tls {
		d.Add(path, "the endpoint has no TLS, but tls is given: write https:// or unixs://, or remove tls")
	}
}

func checkHostPort(text string) error {
	host, port, err := net.SplitHostPort(text)
	if err != nil || strings.ContainsAny(host, "/@ ") {
		return fmt.Errorf("%q is not a host with a port", text)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%q has no port from 0 to 65535", text)
	}
	return nil
}

// chooseRepository finds the cluster's repository and sets its name.
func chooseRepository(d *strict.Decoder, path string, c *Config, cluster *Cluster) {
	names := sortedKeys(c.Repositories)
	at := path + ".repository"
	_, known := c.Repositories[cluster.Repository]
	switch {
	case d.Failed(at) || len(names) == 0:
	case d.Given(at) && !known:
		d.Add(at, "there is no repository %q%s", cluster.Repository, strict.DidYouMean(cluster.Repository, names))
	case !d.Given(at) && len(names) > 1:
		d.Add(at, "is missing: there are several, so say which: %s", strict.OrList(names))
	case !d.Given(at):
		cluster.Repository = names[0]
	}
}

// checkFrom is a fixed day, so that a file is not valid today and invalid
// tomorrow.
var checkFrom = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)

func checkTimes(d *strict.Decoder, path string, c *Cluster) {
	for _, s := range []struct{ path, line string }{
		{path + ".snapshot.schedule", c.Snapshot.Schedule},
		{path + ".verify.schedule", c.Verify.Schedule},
		{path + ".defragment.schedule", c.Defragment.Schedule},
	} {
		if !d.Usable(s.path) {
			continue
		}
		if _, err := schedule.Parse(s.line, time.UTC); err != nil {
			d.Add(s.path, "%v", err)
		}
	}
	if line, err := schedule.Parse(c.Snapshot.Schedule, time.UTC); err == nil && d.Usable(path+".snapshot.jitter") {
		if shortest := line.Shortest(checkFrom); c.Snapshot.Jitter >= shortest {
			d.Add(path+".snapshot.jitter", "must be less than the shortest time between two runs, which is %s", shortest)
		}
	}
	if at := path + ".snapshot.max-rate"; d.Usable(at) && c.Snapshot.MaxRate != 0 &&
		c.Snapshot.MaxRate < cluster.MinMaxRate {
		d.Add(at, "must be 0 or at least 4MiB: while a stream is open etcd cannot reuse pages")
	}
	for key, value := range map[string]time.Duration{
		"timeout": c.Snapshot.Timeout, "stall-timeout": c.Snapshot.StallTimeout,
		"request-timeout": c.Snapshot.RequestTimeout,
	} {
		if at := path + ".snapshot." + key; d.Usable(at) && value == 0 {
			d.Add(at, "must be more than 0")
		}
	}
}

func checkRetention(d *strict.Decoder, path string, r *Retention) {
	if d.Given(path+".time-zone") && !d.Failed(path+".time-zone") {
		if _, err := time.LoadLocation(r.TimeZone); err != nil {
			d.Add(path+".time-zone", "%v: want a name such as Europe/Berlin", err)
		}
	}
	keeps := r.KeepLast+r.KeepHourly+r.KeepDaily+r.KeepWeekly+r.KeepMonthly+r.KeepYearly > 0 || r.KeepWithin > 0
	for key, limits := range map[string]bool{"max-bytes": r.MaxBytes > 0, "min-age": r.MinAge > 0} {
		if limits && !keeps {
			d.Add(path+"."+key, "has no effect: nothing is ever removed without a keep rule, such as keep-last")
		}
	}
}
