package check

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/etcd-backupd/backupd/internal/certs"
	"github.com/etcd-backupd/backupd/internal/check/certificate"
	"github.com/etcd-backupd/backupd/internal/check/greet"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/config"
	"github.com/etcd-backupd/backupd/internal/disk"
)

// Limits from which a member gets a warning.
const (
	maxClockOffset = 2 * time.Second
	defaultTimeout = 5 * time.Second
	nearQuota      = 0.8
	defaultQuota   = 2 << 30   // of an etcd that does not report its own
	muchFree       = 0.5       // of a database file
	worthATry      = 100 << 20 // of free space, to defragment
)

// member is one endpoint and its answers.
type member struct {
	list
	endpoint string // as the configuration spells it
	url      string // with its scheme
	down     error  // why there was no answer; how bad that is depends on the other members
	answered bool
	survey   *cluster.Survey
	cluster.Candidate
}

// ask asks one endpoint all questions about this member alone.
func (c *clusterCheck) ask(ctx context.Context, endpoint string) *member {
	conf, client := c.conf, c.client
	m := &member{endpoint: endpoint, url: client.URL(endpoint)}
	m.section, m.subject = SectionCluster, conf.Name+" "+endpoint
	client.Endpoints = []string{m.url}
	if !m.meet(ctx, conf, client, c.now) {
		return m
	}
	client.Log = c.log
	cl, err := cluster.New(client)
	if err != nil {
		m.fail("correct the cluster's endpoints and tls", "%v", err)
		return m
	}
	defer cl.Close()
	survey, err := cl.Survey(ctx)
	switch {
	case errors.Is(err, cluster.ErrPermission):
		m.fail(loginHint(conf, err), "%v", lastRefusal(err))
	case err != nil:
		m.down = lastRefusal(err)
	default:
		m.answered, m.survey, m.Candidate = true, survey, survey.Candidates[0]
		m.report(conf)
		if cl.HasV2Keys(ctx, m.Candidate) {
			m.warn("write what is still needed to v3 keys: etcd 3.6 serves no others; until then etcdutl backup of etcd 3.5 "+
				"copies them, of a member that is stopped",
				"the member also serves keys of etcd's v2 API (--enable-v2): no snapshot holds them")
		}
	}
	return m
}

// lastRefusal takes the reason out of the error of a survey of one endpoint.
func lastRefusal(err error) error {
	var none *cluster.NoMemberError
	if errors.As(err, &none) && len(none.Refusals) == 1 {
		return none.Refusals[0].Err
	}
	return err
}

func loginHint(conf *config.Cluster, err error) string {
	if conf.User == "" {
		if conf.TokenFile != "" {
			return hintOf(err, "check the token-file of the cluster")
		}
		return "give the cluster user and password-file of an etcd user with the role root, " +
			"or a client certificate whose common name is such a user"
	}
	return hintOf(err, "check user and password-file of the cluster")
}

// meet connects without a login, and reports whether it makes sense to go on.
func (m *member) meet(ctx context.Context, conf *config.Cluster, client cluster.Config, now time.Time) bool {
	u, err := url.Parse(m.url)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" {
		return true // a socket has no certificate for a host
	}
	tlsConf := &tls.Config{MinVersion: tls.VersionTLS12}
	if client.Secure(m.endpoint) {
		tlsConf, err = client.TLS()
		if err != nil {
			m.fail("correct the files of the cluster's tls", "%v", err)
			return false
		}
	}
	timeout := conf.Snapshot.RequestTimeout
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	g := greet.Member(ctx, m.url, tlsConf)
	if g.Err != nil && greet.Unreachable(g.Err) && g.Chain == nil {
		m.down = g.Err
		return false
	}
	if u.Scheme == "http" {
		return m.plain(ctx, u, g)
	}
	if g.Chain == nil && !greet.WasRefused(g.Err) {
		if other := greet.Member(ctx, "http://"+u.Host, tlsConf); other.Status != 0 {
			m.fail("write the endpoint with http://, or give the member a certificate",
				"the member does not speak TLS at this address")
		} else {
			m.down = g.Err
		}
		return false
	}
	if g.Chain != nil && !m.certificate(conf, g, tlsConf, u.Hostname(), now) {
		return false
	}
	if g.Err != nil && !greet.WasRefused(g.Err) {
		g.Err = greet.Ending(ctx, u.Host, tlsConf)
	}
	if greet.WasRefused(g.Err) {
		hint := "name a client certificate in tls.cert-file and tls.key-file"
		if conf.TLS.CertFile != "" {
			hint = certs.WhyRefused(conf.TLS.CertFile, now)
		}
		m.fail(hint, "the member refuses the connection: %v", g.Err)
		return false
	}
	m.clock(g)
	return true
}

// clock compares the member's clock with ours.
func (m *member) clock(g greet.Answer) {
	if !g.Dated || g.Offset.Abs() <= maxClockOffset {
		return
	}
	word := "ahead of"
	if g.Offset < 0 {
		word = "behind"
	}
	m.warn("synchronize the clocks (NTP): leases, certificates and the names of snapshots depend on them",
		"the member's clock is %s %s this host's", certificate.Span(g.Offset.Abs()), word)
}

// plain checks a connection without TLS, and reports whether to go on.
func (m *member) plain(ctx context.Context, u *url.URL, g greet.Answer) bool {
	if g.Err != nil || g.Status == http.StatusBadRequest {
		if other := greet.Member(ctx, "https://"+u.Host, &tls.Config{MinVersion: tls.VersionTLS12}); other.Chain != nil {
			m.fail("write the endpoint with https://, and name the CA of the members in tls.ca-file",
				"the member speaks TLS at this address")
			return false
		}
	}
	if ip := net.ParseIP(u.Hostname()); u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
		m.warn("give the members certificates and write https://",
			"the connection is not encrypted: anybody on the network path can read the whole database")
	}
	m.clock(g)
	return true
}

// certificate checks the certificate that the member showed, and reports whether
// to go on.
func (m *member) certificate(
	conf *config.Cluster, g greet.Answer, tlsConf *tls.Config, host string, now time.Time,
) bool {
	if !conf.TLS.InsecureSkipVerify {
		return verify(&m.list, g.Chain, tlsConf.RootCAs, cmp.Or(tlsConf.ServerName, host), now)
	}
	m.warn("name the CA of the members in tls.ca-file, and remove insecure-skip-verify",
		"the member's certificate is not verified: any server at this address could send any database")
	return true
}

// report adds the state of a member that answered.
func (m *member) report(conf *config.Cluster) {
	role := "follower"
	switch {
	case m.Learner:
		role = "learner"
	case m.Leader:
		role = "leader"
	}
	name := m.survey.Member(m.MemberID).Name
	if name == "" {
		name = "member"
	}
	who := fmt.Sprintf("%s (%s) answers", name, m.MemberID)
	if m.Proxy {
		who = "a member answers through a proxy"
	}
	m.ok("%s: %s, etcd %s, revision %d, database of %s", who, role, m.Version, m.Revision, disk.Size(m.DatabaseBytes))
	if m.Proxy {
		m.warn(hintOf(m.survey.MembersErr, ""), "snapshots through this endpoint are unconfirmed: %v", m.survey.MembersErr)
	}
	checkVersion(&m.list, m.Version)
	if m.Learner {
		m.ok("it is a learner: no snapshot is taken from it while a voting member answers")
	}
	if m.NoLeader {
		m.fail("start the other members; a snapshot can be taken all the same",
			"it sees no leader: the cluster has no majority, and serves no writes")
	}
	m.room()
	m.fragmentation(conf)
}

// room compares a database with its quota.
func (m *member) room() {
	used := func(quota int64) float64 { return float64(m.DatabaseBytes) / float64(quota) }
	const hint = "compact and defragment, or raise --quota-backend-bytes, before the alarm NOSPACE stops all writes"
	switch {
	case m.QuotaBytes > 0 && used(m.QuotaBytes) >= nearQuota:
		m.warn(hint, "the database takes %.0f%% of its quota of %s", 100*used(m.QuotaBytes), disk.Size(m.QuotaBytes))
	case m.QuotaBytes == 0 && used(defaultQuota) >= nearQuota:
		m.warn(hint, "the database takes %s, and the quota is %s unless --quota-backend-bytes is set",
			disk.Size(m.DatabaseBytes), disk.Size(defaultQuota))
	}
}

// fragmentation warns of many free pages: every snapshot includes them.
func (m *member) fragmentation(conf *config.Cluster) {
	free := m.DatabaseBytes - m.InUseBytes
	if m.InUseBytes == 0 || conf.Defragment.Schedule != "" ||
		free < worthATry || float64(free) < muchFree*float64(m.DatabaseBytes) {
		return
	}
	m.warn("defragment it (etcdctl defrag), or set the cluster's defragment.schedule",
		"%s of the database's %s are free pages, and every snapshot includes them", disk.Size(free),
		disk.Size(m.DatabaseBytes))
}
