package testserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// AddMember adds a voting member to the running cluster, and returns when it has
// caught up and all agree on a leader.
//
// It joins as a learner and is promoted. A voter added to a cluster of one
// takes the majority away until it runs, and before it runs it asks the others
// something that takes a majority: that ends only by time-out, in 15 seconds.
func (c *Cluster) AddMember(t testing.TB) *Member {
	t.Helper()
	m, id := c.addLearner(t, "member")
	client := c.Client(t)
	must(t, "promote "+m.Name, reconfigure(t.Context(), func(ctx context.Context) error {
		_, err := client.MemberPromote(ctx, id)
		return err
	}))
	m.Learner = false
	must(t, "wait for "+m.Name+" to vote", c.awaitVoter(t.Context(), m))
	c.WaitReady(t)
	return m
}

// awaitVoter waits until a member knows of its promotion: until then it refuses logins.
func (c *Cluster) awaitVoter(ctx context.Context, m *Member) error {
	return waitUntil(ctx, readyLimit, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		client, err := c.dial(ctx, c.user, c.password, m.ClientURL)
		if err != nil {
			return err
		}
		defer client.Close()
		st, err := client.Status(ctx, m.ClientURL)
		if err == nil && st.IsLearner {
			err = errors.New("it is a learner")
		}
		return err
	})
}

// AddLearner adds a learner to the running cluster, and returns when it has caught
// up. Endpoints does not list it. etcd allows one at a time, and AddMember needs
// that one.
func (c *Cluster) AddLearner(t testing.TB) *Member {
	t.Helper()
	m, _ := c.addLearner(t, "learner")
	return m
}

// addLearner announces a learner to the cluster, starts it and waits for it.
func (c *Cluster) addLearner(t testing.TB, name string) (m *Member, id uint64) {
	t.Helper()
	m = c.newMember(t, c.dir, name+strconv.Itoa(len(c.Members)+1))
	m.Learner = true
	client := c.Client(t)
	var added *clientv3.MemberAddResponse
	must(t, "add "+m.Name, reconfigure(t.Context(), func(ctx context.Context) error {
		var err error
		added, err = client.MemberAddAsLearner(ctx, []string{m.PeerURL})
		return err
	}))
	m.args = append(m.args, "--initial-cluster="+initialCluster(m, added), "--initial-cluster-state=existing")
	m.args = append(m.args, c.noSync()...)
	c.Members = append(c.Members, m)
	must(t, "start "+m.Name, m.start())
	must(t, "wait for "+m.Name, c.awaitLearner(t.Context(), m))
	return m, added.Member.ID
}

// Upgrade restarts one member after the other with the etcd of another minor, and
// returns when the cluster is of that version.
func (c *Cluster) Upgrade(t testing.TB, version string) {
	t.Helper()
	bin := Binary(t, version, "etcd")
	for _, m := range c.Members {
		m.Terminate()
		m.bin = bin
		m.Restart(t)
		c.WaitReady(t)
	}
	c.Version, c.bin = version, bin
	must(t, "wait for the cluster to be of version "+version, waitUntil(t.Context(), readyLimit, c.isUpgraded))
}

// isUpgraded returns nil when the members have agreed on the version of the cluster.
func (c *Cluster) isUpgraded(ctx context.Context) error {
	conf, err := c.TLSConfig()
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.Members[0].ClientURL+"/version", nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && !strings.Contains(string(body), `"etcdcluster":"`+c.Version+".") {
		err = fmt.Errorf("it answers %s", body)
	}
	return err
}

// reconfigure repeats a change of the membership while etcd refuses it only
// for now: until its members have been connected for some seconds, and until
// the learner to be promoted has caught up.
func reconfigure(ctx context.Context, change func(context.Context) error) error {
	var final error
	err := waitUntil(ctx, readyLimit, func(ctx context.Context) error {
		err := change(ctx)
		switch {
		case errors.Is(err, rpctypes.ErrUnhealthy), errors.Is(err, rpctypes.ErrMemberNotEnoughStarted),
			errors.Is(err, rpctypes.ErrMemberLearnerNotReady):
			return err
		}
		final = err
		return nil
	})
	return errors.Join(err, final)
}

func (c *Cluster) awaitLearner(ctx context.Context, m *Member) error {
	if err := waitUntil(ctx, readyLimit, m.listening); err != nil {
		return err
	}
	client, err := c.dial(ctx, "", "", m.ClientURL)
	if err != nil {
		return err
	}
	defer client.Close()
	return waitUntil(ctx, readyLimit, func(ctx context.Context) error {
		if err := m.listening(ctx); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		// A learner reads only from its own state, and answers at all only once
		// that holds everything up to its joining. It lets nobody log in.
		_, err := client.Get(ctx, "any", clientv3.WithSerializable())
		if c.user != "" && errors.Is(err, rpctypes.ErrUserEmpty) {
			return nil
		}
		return err
	})
}

// initialCluster spells the membership after m was added; m has no name there
// before it starts.
func initialCluster(m *Member, added *clientv3.MemberAddResponse) string {
	var parts []string
	for _, other := range added.Members {
		name := other.Name
		if other.ID == added.Member.ID {
			name = m.Name
		}
		for _, url := range other.PeerURLs {
			parts = append(parts, name+"="+url)
		}
	}
	return strings.Join(parts, ",")
}

// EnableAuth creates the user root and turns authentication on. Client logs in
// as root from then on.
func (c *Cluster) EnableAuth(t testing.TB, rootPassword string) {
	t.Helper()
	c.AddUser(t, "root", rootPassword, "root")
	_, err := c.Client(t).AuthEnable(t.Context())
	must(t, "enable auth", err)
	c.user, c.password = "root", rootPassword
}

// AddUser creates a user with the named roles. A role that does not exist yet
// is created and may read and write every key. An empty password makes a user
// who can log in only with a certificate of that common name.
func (c *Cluster) AddUser(t testing.TB, name, password string, roles ...string) {
	t.Helper()
	ctx, client := t.Context(), c.Client(t)
	_, err := client.UserAddWithOptions(ctx, name, password, &clientv3.UserAddOptions{NoPassword: password == ""})
	must(t, "add user "+name, err)
	for _, role := range roles {
		if _, err := client.RoleGet(ctx, role); err != nil && role != "root" {
			_, err := client.RoleAdd(ctx, role)
			must(t, "add role "+role, err)
			_, err = client.RoleGrantPermission(ctx, role, "\x00", "\x00",
				clientv3.PermissionType(clientv3.PermReadWrite))
			must(t, "grant role "+role, err)
		}
		_, err := client.UserGrantRole(ctx, name, role)
		must(t, "grant role "+role+" to "+name, err)
	}
}
