// Package srv finds the members of a cluster by the SRV records of a domain, as etcd does
// with --discovery-srv.
package srv

import (
	"errors"
	"net"
	"strconv"
	"strings"

	"go.etcd.io/etcd/client/pkg/v3/srv"
	"go.etcd.io/etcd/client/pkg/v3/types"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/members"
)

// Discovery is what an etcd server is told about it.
type Discovery struct {
	Domain  members.Word // --discovery-srv
	Service string       // --discovery-srv-name
	// Name and PeerURLs are those of the member itself: --name and
	// --initial-advertise-peer-urls.
	Name     string
	PeerURLs []string
}

// Cluster is what the records say.
type Cluster struct {
	// Members are sorted by name. This one has its own. Records have no names, so all
	// others have the numbers that etcd gives them until they say theirs: only their URLs
	// count.
	Members []backup.Member
	// Self is this member, with the URLs of its record, which may be spelled in another
	// way than its own settings.
	Self backup.Member
}

// kinds are the two services that etcd asks for.
var kinds = []struct{ scheme, service string }{{"https", "etcd-server-ssl"}, {"http", "etcd-server"}}

// Lookup asks for the records now. Its errors are [*members.FileError] at the domain: etcd
// would not start either, or the records say two things.
func (d Discovery) Lookup() (Cluster, error) {
	at := d.Domain.At
	if _, err := strconv.Atoi(d.Name); err == nil {
		return Cluster{}, at.Errorf("etcd gives numbers to the members that it finds in DNS, and this one has the number "+
			"%s for a name: which is which cannot be known", d.Name)
	}
	urls, err := types.NewURLs(d.PeerURLs)
	if err != nil {
		return Cluster{}, at.Errorf("the peer URLs of %s: %v", d.Name, err)
	}
	var found, problems []string
	of := ""
	for _, k := range kinds {
		service := k.service + d.suffix()
		list, err := srv.GetCluster(k.scheme, service, d.Name, d.Domain.Text, urls)
		var dns *net.DNSError
		if errors.As(err, &dns) && dns.IsNotFound {
			problems = append(problems, err.Error())
			continue
		}
		if err != nil { // etcd may find members of the other kind, and fewer than there are
			return Cluster{}, at.Errorf("%v", err)
		}
		if err := d.complete(service, len(list)); err != nil {
			return Cluster{}, err
		}
		if len(list) > 0 && of != "" {
			return Cluster{}, at.Errorf("%s has records of _%s._tcp and of _%s._tcp: etcd makes one cluster of both, "+
				"and mixes its members up", d.Domain.Text, of, service)
		}
		found, of = append(found, list...), service
	}
	if len(found) == 0 {
		return Cluster{}, backup.WithHint(at.Errorf("no members of %s in DNS: %s", d.Domain.Text,
			strings.Join(problems, "; ")), "ask with: dig SRV _etcd-server-ssl%s._tcp.%s",
			d.suffix(), d.Domain.Text)
	}
	return d.cluster(strings.Join(found, ","))
}

func (d Discovery) suffix() string {
	if d.Service == "" {
		return ""
	}
	return "-" + d.Service
}

// complete refuses a list in which a record is missing: etcd leaves out those whose target
// it cannot resolve, and its own when it has the wrong scheme.
func (d Discovery) complete(service string, n int) error {
	_, records, err := net.LookupSRV(service, "tcp", d.Domain.Text)
	if err != nil {
		return d.Domain.At.Errorf("%v", err)
	}
	if len(records) == n {
		return nil
	}
	var targets []string
	for _, r := range records {
		targets = append(targets, net.JoinHostPort(strings.TrimSuffix(r.Target, "."), strconv.Itoa(int(r.Port))))
	}
	return d.Domain.At.Errorf("_%s._tcp.%s has %d records (%s), of which %d can be used: a target has no address now, "+
		"or the scheme of its peer URL is another", service, d.Domain.Text, len(records), strings.Join(targets, ", "), n)
}

// cluster makes members of an --initial-cluster.
func (d Discovery) cluster(text string) (Cluster, error) {
	all, err := members.Parse(text)
	if err != nil {
		return Cluster{}, d.Domain.At.Errorf("%v", err)
	}
	for _, m := range all {
		if m.Name == d.Name {
			return Cluster{all, m}, nil
		}
	}
	var others []string
	for _, m := range all {
		others = append(others, m.PeerURLs...)
	}
	return Cluster{}, d.Domain.At.Errorf("%s is not among the members of %s in DNS (%s): its own peer URLs are %s", d.Name,
		d.Domain.Text, strings.Join(others, ", "), strings.Join(d.PeerURLs, ", "))
}
