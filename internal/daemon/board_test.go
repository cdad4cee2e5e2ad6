package daemon

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/etcd-backupd/backupd/internal/server"
)

func TestBoard_Kept(t *testing.T) {
	b := newBoard()
	first := b.begin(kindBackup, "a", "scheduled") // runs all the time
	for range jobsKept + 50 {
		b.begin(kindBackup, "b", "scheduled").end(server.JobSucceeded, "id", nil)
	}
	list := b.list()
	if len(list) != jobsKept || list[len(list)-1].ID != first.ID || list[0].State != server.JobSucceeded {
		t.Errorf("%d jobs are kept, the oldest is %+v", len(list), list[len(list)-1])
	}
	if !b.running(kindBackup, "a") || b.running(kindBackup, "b") || b.running(kindVerify, "a") {
		t.Error("wrong about what runs")
	}
	b.remove(first)
	if b.running(kindBackup, "a") {
		t.Error("a job that was taken back runs")
	}
}

func TestBoard_Abandon(t *testing.T) {
	b := newBoard()
	j := b.begin(kindBackup, "a", "scheduled")
	func() {
		defer func() { _ = recover() }()
		defer j.abandon()
		panic("oh")
	}()
	if got := j.current(); got.State != server.JobFailed || got.Error == "" || got.Ended.IsZero() {
		t.Errorf("after a panic: %+v", got)
	}
	good := b.begin(kindBackup, "a", "scheduled")
	good.end(server.JobSucceeded, "id", nil)
	if good.abandon(); good.current().State != server.JobSucceeded {
		t.Errorf("got %+v", good.current())
	}
}

// TestBoard_Subscribe: a slow reader is told the newest state of each job, and
// holds up nobody.
func TestBoard_Subscribe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoard()
		ctx, cancel := context.WithCancel(t.Context())
		told, more := []string{}, make(chan bool)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			b.subscribe(ctx, func(j server.Job) {
				<-more
				told = append(told, fmt.Sprintf("%s %s %s %d", j.Cluster, j.State, j.Stage, j.Done))
			})
		}()
		synctest.Wait()
		j := b.begin(kindBackup, "a", "scheduled")
		synctest.Wait() // it has this one, and does not go on
		for i := range int64(1000) {
			j.progress("receive", i, 1000)
		}
		time.Sleep(time.Second)
		other := b.begin(kindBackup, "b", "scheduled")
		j.progress("store", 10, 1000)
		other.end(server.JobFailed, "", nil)
		j.end(server.JobSucceeded, "id", nil)
		close(more)
		synctest.Wait()
		want := []string{"a running  0", "a succeeded store 10", "b failed  0"}
		if diff := cmp.Diff(want, told); diff != "" {
			t.Errorf("told (-want +got):\n%s", diff)
		}
		cancel()
		<-ended
		if len(b.readers) != 0 {
			t.Error("a reader that has gone is told still")
		}
		b.begin(kindBackup, "a", "scheduled")
	})
}

// TestBoard_Progress: within one stage no more than four changes a second.
func TestBoard_Progress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoard()
		ctx, cancel := context.WithCancel(t.Context())
		told := 0
		ended := make(chan struct{})
		go func() { defer close(ended); b.subscribe(ctx, func(server.Job) { told++ }) }()
		synctest.Wait()
		j := b.begin(kindBackup, "a", "scheduled")
		synctest.Wait()
		for i := range int64(1000) {
			j.progress("receive", i, 1000)
			synctest.Wait()
		}
		if told != 2 {
			t.Errorf("told %d times, want once of the begin and once of the stage", told)
		}
		cancel()
		<-ended
	})
}
