// Package drill boots etcd members in this process on data directories. It proves
// that a restored cluster runs and holds the same data as its source.
package drill

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

// bootTimeout bounds the wait for a booted cluster to elect a leader.
const bootTimeout = 60 * time.Second

// Member is one etcd server to boot.
type Member struct {
	Name      string
	DataDir   string
	PeerURL   string
	ClientURL string
}

// Cluster is a set of running members.
type Cluster struct {
	members []Member
	servers []*embed.Etcd
	clients []*clientv3.Client // one per member, in order
}

// Plan makes n members with data directories in dir, on free loopback ports.
func Plan(dir string, n int) ([]Member, error) {
	urls, err := freeURLs(2 * n)
	if err != nil {
		return nil, err
	}
	var out []Member
	for i := range n {
		name := fmt.Sprintf("m%d", i+1)
		out = append(out, Member{
			Name: name, DataDir: filepath.Join(dir, name), PeerURL: urls[2*i], ClientURL: urls[2*i+1],
		})
	}
	return out, nil
}

// freeURLs holds all ports at once, so that no two are the same.
func freeURLs(n int) ([]string, error) {
	var out []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("look for a free port: %w", err)
		}
		defer l.Close()
		out = append(out, "http://"+l.Addr().String())
	}
	return out, nil
}

// Boot starts the members and waits until each serves and all see one leader. A
// member continues with its data directory if it has one, and otherwise starts a
// new cluster with the others. The caller must close the cluster.
func Boot(ctx context.Context, members []Member, token string) (_ *Cluster, err error) {
	c := &Cluster{members: members}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	for _, m := range members {
		conf, err := m.config(members, token)
		if err != nil {
			return nil, err
		}
		e, err := embed.StartEtcd(conf)
		if err != nil {
			return nil, fmt.Errorf("start member %s: %w", m.Name, err)
		}
		c.servers = append(c.servers, e)
	}
	ctx, cancel := context.WithTimeout(ctx, bootTimeout)
	defer cancel()
	for i, e := range c.servers {
		select {
		case <-e.Server.ReadyNotify():
		case err := <-e.Err():
			return nil, fmt.Errorf("start member %s: %w", members[i].Name, err)
		case <-ctx.Done():
			return nil, fmt.Errorf("start member %s: %w", members[i].Name, context.Cause(ctx))
		}
		cl, err := clientv3.New(clientv3.Config{
			Endpoints: []string{members[i].ClientURL}, Logger: zap.NewNop(), DialTimeout: 5 * time.Second,
		})
		if err != nil {
			return nil, fmt.Errorf("connect to member %s: %w", members[i].Name, err)
		}
		c.clients = append(c.clients, cl)
	}
	return c, nil
}

func (m Member) config(all []Member, token string) (*embed.Config, error) {
	peer, err := url.Parse(m.PeerURL)
	if err != nil {
		return nil, fmt.Errorf("parse peer URL: %w", err)
	}
	client, err := url.Parse(m.ClientURL)
	if err != nil {
		return nil, fmt.Errorf("parse client URL: %w", err)
	}
	var initial []string
	for _, o := range all {
		initial = append(initial, o.Name+"="+o.PeerURL)
	}
	conf := embed.NewConfig()
	conf.Name, conf.Dir = m.Name, m.DataDir
	conf.ListenPeerUrls, conf.AdvertisePeerUrls = []url.URL{*peer}, []url.URL{*peer}
	conf.ListenClientUrls, conf.AdvertiseClientUrls = []url.URL{*client}, []url.URL{*client}
	conf.InitialCluster, conf.InitialClusterToken = strings.Join(initial, ","), token
	conf.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	conf.UnsafeNoFsync = true // the data of a drill is deleted in the end
	return conf, nil
}

// Endpoints returns the members' client URLs.
func (c *Cluster) Endpoints() []string {
	var out []string
	for _, m := range c.members {
		out = append(out, m.ClientURL)
	}
	return out
}

// Close stops all members. Their data stays.
func (c *Cluster) Close() error {
	var errs []error
	for _, cl := range c.clients {
		errs = append(errs, cl.Close())
	}
	for _, e := range slices.Backward(c.servers) {
		e.Close()
	}
	c.clients, c.servers = nil, nil
	return errors.Join(errs...)
}
