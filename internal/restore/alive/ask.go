// Package alive finds servers that still answer where a restored cluster will be: members of
// the old cluster, which would go on to serve clients beside the new one. It asks without
// certificates, changes nothing, and takes seconds.
package alive

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/members"
)

// limit is how long a server has to answer: one that takes longer counts as gone.
const limit = 2 * time.Second

// Question is what is known of both clusters.
type Question struct {
	// Old is the id of the cluster that the snapshot is of, and Recorded are its members.
	Old      backup.MemberID
	Recorded []backup.Member
	// New is the id of the cluster that is restored, and Planned are its members.
	New     backup.MemberID
	Planned []backup.Member
	// TLS, if it is set, is how members reach one another. Without it no certificate is shown
	// or looked at, and members that want one do not say of which cluster they are.
	TLS *tls.Config
}

// Answer is a server that was found.
type Answer struct {
	Member string
	URL    string
	// Client is true if the URL is one for clients, and not for peers.
	Client bool
	// Cluster is the id of its cluster; 0 if it does not tell.
	Cluster backup.MemberID
	// Members are those of its cluster, by itself; nil if it does not tell, or was asked at a
	// client URL.
	Members []backup.Member

	voter bool // the member is a recorded voter
}

// Found is what has answered.
type Found struct {
	// Old are servers of the old cluster. If both clusters have one id, all are.
	Old []Answer
	// New are members of the new cluster that run already.
	New []Answer
	// Other listen on a peer URL of the new cluster, and are of neither or do not tell.
	Other []Answer
	// Voters is how many voting members the old cluster had, and Living how many of them
	// answer.
	Voters, Living int
	// Endpoints are the client URLs of those.
	Endpoints []string
}

// Ask asks all members at once. If the new cluster takes no peer URL over from the old one,
// the old one may live on, and only the addresses of the new one are asked.
func Ask(ctx context.Context, q Question) Found {
	asked := q.asked()
	var wg sync.WaitGroup
	answered := make([]bool, len(asked))
	for i := range asked {
		wg.Go(func() { answered[i] = asked[i].ask(ctx, q.TLS) })
	}
	wg.Wait()
	var all []Answer
	for i, a := range asked {
		if answered[i] {
			all = append(all, a)
		}
	}
	return q.sort(all)
}

// asked lists all URLs that are asked, each once.
func (q *Question) asked() []Answer {
	var out []Answer
	seen := map[string]bool{}
	add := func(m backup.Member, urls []string, client, voter bool) {
		for _, u := range urls {
			if key := canonical(u); strings.HasPrefix(u, "http") && !seen[key] {
				seen[key] = true
				out = append(out, Answer{Member: m.Name, URL: u, Client: client, voter: voter})
			}
		}
	}
	if q.takesOver() {
		for _, m := range q.Recorded {
			add(m, m.PeerURLs, false, !m.Learner)
			add(m, m.ClientURLs, true, !m.Learner)
		}
	}
	for _, m := range q.Planned {
		add(m, m.PeerURLs, false, false)
	}
	return out
}

// takesOver reports whether a member of the new cluster has the address of an old one.
func (q *Question) takesOver() bool {
	return slices.ContainsFunc(q.Planned, func(p backup.Member) bool {
		return slices.ContainsFunc(q.Recorded, func(r backup.Member) bool { return share(p.PeerURLs, r.PeerURLs) })
	})
}

func share(a, b []string) bool {
	return slices.ContainsFunc(a, func(u string) bool {
		return slices.ContainsFunc(b, func(v string) bool { return canonical(u) == canonical(v) })
	})
}

// canonical spells a URL in one way.
func canonical(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return raw
	}
	return members.Canonical([]url.URL{*u})[0]
}

// sort says what the answers mean.
func (q *Question) sort(all []Answer) Found {
	var f Found
	living := map[string]bool{}
	for _, a := range all {
		switch planned := slices.ContainsFunc(q.Planned, func(m backup.Member) bool {
			return share(m.PeerURLs, []string{a.URL})
		}); {
		case a.Cluster == q.Old && q.Old != 0:
			f.Old = append(f.Old, a)
			living[a.Member] = living[a.Member] || a.voter
		case planned && !a.Client && a.Cluster == q.New:
			f.New = append(f.New, a)
		case planned && !a.Client:
			f.Other = append(f.Other, a)
		}
	}
	for _, m := range q.Recorded {
		if m.Learner {
			continue
		}
		f.Voters++
		if living[m.Name] {
			f.Living++
			f.Endpoints = append(f.Endpoints, m.ClientURLs...)
		}
	}
	return f
}

// ask reports whether a server answers, or at least listens, and fills in its cluster.
func (a *Answer) ask(ctx context.Context, as *tls.Config) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if as == nil {
		// Nothing is told to the server, and an old one may have any certificate.
		as = &tls.Config{InsecureSkipVerify: true} // see above
	}
	var connected atomic.Bool
	client := &http.Client{
		Transport: &http.Transport{ // without a proxy: members reach one another directly
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
				if err == nil {
					connected.Store(true)
				}
				return conn, err
			},
			TLSClientConfig:   as.Clone(),
			DisableKeepAlives: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if a.Client {
		if id, err := clientRequest(ctx, client, a.URL); err == nil {
			a.Cluster = id
		}
	} else if id, all, err := peerRequest(ctx, client, a.URL); err == nil {
		a.Cluster, a.Members = id, all
	}
	return connected.Load()
}

// maxAnswer is how much of an answer is read, in bytes.
const maxAnswer = 1 << 20

// peerRequest asks a member for its members: the answer has the id of the cluster, also
// where users have to log in. A server that is not etcd may send anything in place of them.
func peerRequest(ctx context.Context, client *http.Client, base string,
) (id backup.MemberID, all []backup.Member, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(base, "/")+"/members", nil)
	if err != nil {
		return 0, nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close() // only read from
	var list []struct {
		ID         uint64   `json:"id"`
		Name       string   `json:"name"`
		PeerURLs   []string `json:"peerURLs"`
		ClientURLs []string `json:"clientURLs"`
		Learner    bool     `json:"isLearner"`
	}
	if json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&list) == nil {
		for _, m := range list {
			all = append(all, backup.Member{
				ID: backup.MemberID(m.ID), Name: m.Name, PeerURLs: m.PeerURLs, ClientURLs: m.ClientURLs, Learner: m.Learner,
			})
		}
	}
	return id, all, id.UnmarshalText([]byte(resp.Header.Get("X-Etcd-Cluster-ID")))
}

// clientRequest asks a member for its status, as gRPC's gateway has it.
func clientRequest(ctx context.Context, client *http.Client, base string) (backup.MemberID, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimRight(base, "/")+"/v3/maintenance/status",
		strings.NewReader("{}"))
	if err != nil {
		return 0, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close() // only read from
	var status struct {
		Header struct {
			ClusterID uint64 `json:"cluster_id,string"`
		} `json:"header"`
	}
	err = json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&status)
	return backup.MemberID(status.Header.ClusterID), err
}
