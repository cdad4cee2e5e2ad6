package testserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// WaitReady waits until every voting member answers and all name the same
// leader. It fails the test if one has ended or if that takes a minute.
func (c *Cluster) WaitReady(t testing.TB) {
	t.Helper()
	must(t, "wait for the cluster", c.awaitReady(t.Context()))
}

func (c *Cluster) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	var clients []*clientv3.Client
	defer func() {
		for _, client := range clients {
			_ = client.Close() // nothing was written through it
		}
	}()
	var voters []*Member
	for _, m := range c.Members {
		if m.Learner {
			continue
		}
		if err := waitUntil(ctx, readyLimit, m.listening); err != nil {
			return err
		}
		client, err := c.dial(ctx, "", "", m.ClientURL)
		if err != nil {
			return err
		}
		voters, clients = append(voters, m), append(clients, client)
	}
	return waitUntil(ctx, readyLimit, func(ctx context.Context) error {
		var leader uint64
		for i, m := range voters {
			got, err := c.leaderOf(ctx, m, clients[i])
			if err != nil {
				return fmt.Errorf("%s: %w", m.Name, err)
			}
			if i == 0 {
				leader = got
			}
			if got != leader {
				return fmt.Errorf("%s follows %x and %s follows %x", voters[0].Name, leader, m.Name, got)
			}
		}
		return nil
	})
}

// listening returns nil when the member's client port accepts connections. It is
// quicker to try that first than to begin with gRPC, which waits a second after
// the first refusal.
func (m *Member) listening(ctx context.Context) error {
	if err := m.proc.exited(); err != nil {
		return fmt.Errorf("%s: %w\n%s", m.Name, err, tail(m.logPath, 10))
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", m.Endpoint)
	if err != nil {
		return fmt.Errorf("%s: %w", m.Name, err)
	}
	return conn.Close()
}

// leaderOf returns the leader that the member names. If the member wants a login
// for that, leaderOf asks for its health instead, which includes having a leader;
// then the result is 0 for all members alike.
func (c *Cluster) leaderOf(ctx context.Context, m *Member, client *clientv3.Client) (uint64, error) {
	if err := m.proc.exited(); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	status, err := client.Status(ctx, m.ClientURL)
	switch {
	case errors.Is(err, rpctypes.ErrUserEmpty), errors.Is(err, rpctypes.ErrPermissionDenied):
		return 0, c.healthOf(ctx, m)
	case err != nil:
		return 0, err
	case status.Leader == 0:
		return 0, errors.New("no leader")
	}
	return status.Leader, nil
}

func (c *Cluster) healthOf(ctx context.Context, m *Member) error {
	conf, err := c.TLSConfig()
	if err != nil {
		return err
	}
	transport := &http.Transport{TLSClientConfig: conf}
	defer transport.CloseIdleConnections()
	// An alarm restored with the data is for the test to find, not for us.
	target := m.ClientURL + "/health?exclude=NOSPACE&exclude=CORRUPT"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if !strings.Contains(string(body), `"health":"true"`) {
		return fmt.Errorf("health: %s: %s", resp.Status, body)
	}
	return nil
}

// WaitStorageVersion waits until every member has raised its storage version to
// want. A new etcd does that some seconds after it has its first leader.
func (c *Cluster) WaitStorageVersion(t testing.TB, want string) {
	t.Helper()
	client := c.Client(t)
	for _, m := range c.Members {
		must(t, "wait for a storage version", waitUntil(t.Context(), readyLimit, func(ctx context.Context) error {
			status, err := client.Status(ctx, m.ClientURL)
			if err == nil && status.StorageVersion != want {
				err = fmt.Errorf("%s has storage version %q, want %q", m.Name, status.StorageVersion, want)
			}
			return err
		}))
	}
}
