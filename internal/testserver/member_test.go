package testserver_test

import (
	"context"
	"errors"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

func TestMember_Kill(t *testing.T) {
	c := testserver.StartCluster(t, testserver.Options{Size: 3})
	client := c.Client(t)
	put(t, c, "before")
	m := c.Members[0]
	m.Kill()
	if m.Running() || alive(m.PID()) {
		t.Errorf("member %s runs after Kill", m.Name)
	}
	m.Restart(t)
	c.WaitReady(t)
	resp, err := client.Get(t.Context(), "before")
	if err != nil {
		t.Fatal(err)
	}
	if resp.Count != 1 {
		t.Error("the key is gone")
	}

	// Without a majority no member gets ready, so Restart must not wait.
	for _, m := range c.Members {
		m.Terminate()
	}
	for _, m := range c.Members {
		m.Restart(t)
	}
	c.WaitReady(t)
}

func TestMember_Pause(t *testing.T) {
	c := testserver.StartCluster(t, testserver.Options{})
	client := c.Client(t)
	m := c.Members[0]
	m.Pause()
	conn, err := net.Dial("tcp", m.Endpoint)
	if err != nil {
		t.Fatalf("a paused member refuses connections: %v", err)
	}
	conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := client.Get(ctx, "key"); err == nil {
		t.Error("a paused member answers")
	}
	m.Resume()
	if _, err := client.Get(t.Context(), "key"); err != nil {
		t.Errorf("get after Resume: %v", err)
	}
}

func TestCluster_CleanUp(t *testing.T) {
	var pids []int
	t.Run("Servers", func(t *testing.T) {
		c := testserver.StartCluster(t, testserver.Options{Size: 2})
		c.Members[1].Pause()
		for _, m := range c.Members {
			pids = append(pids, m.PID())
		}
	})
	for _, pid := range pids {
		if alive(pid) {
			t.Errorf("process %d outlives its test", pid)
		}
	}
}

func TestCluster_AddMember(t *testing.T) {
	c := testserver.StartCluster(t, testserver.Options{Size: 1})
	voter := c.AddMember(t)
	learner := c.AddLearner(t)
	client := c.Client(t)
	members, err := client.MemberList(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(members.Members) != 3 || len(c.Endpoints()) != 2 {
		t.Errorf("got %v and endpoints %v, want three members and two endpoints", members.Members, c.Endpoints())
	}
	for _, m := range []*testserver.Member{voter, learner} {
		status, err := client.Status(t.Context(), m.ClientURL)
		if err != nil {
			t.Fatal(err)
		}
		if status.IsLearner != m.Learner {
			t.Errorf("%s is a learner: %v, want %v", m.Name, status.IsLearner, m.Learner)
		}
	}
	if !learner.Learner || voter.Learner {
		t.Errorf("got learner %v and voter %v mixed up", learner.Learner, voter.Learner)
	}
}

func put(t *testing.T, c *testserver.Cluster, key string) {
	t.Helper()
	if _, err := c.Client(t).Put(t.Context(), key, "value"); err != nil {
		t.Fatalf("put %s: %v", key, err)
	}
}

func alive(pid int) bool { return !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }
