package cluster_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

func TestHashKV(t *testing.T) {
	real := testserver.StartCluster(t, testserver.Options{})
	filled := testserver.Fill(t, real.Client(t), testserver.FillOptions{Keys: 20, Compact: true})
	url := real.Members[0].ClientURL
	c := testserver.Connect(t, cluster.Config{Endpoints: []string{url}})
	rev := backup.Revision(filled.Revision)

	got, err := c.HashKV(t.Context(), memberAt(t, c, url), rev)
	if err != nil {
		t.Fatal(err)
	}
	want, err := real.Client(t).HashKV(t.Context(), url, filled.Revision)
	if err != nil {
		t.Fatal(err)
	}
	if got != (backup.HashKV{Hash: want.Hash, Revision: rev, CompactRevision: backup.Revision(filled.Compacted)}) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if _, err := c.HashKV(t.Context(), memberAt(t, c, url), 1); !errors.Is(err, cluster.ErrCompacted) {
		t.Errorf("compacted revision: got %v", err)
	}
	t.Run("FutureRevision", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		if _, err := c.HashKV(ctx, memberAt(t, c, url), rev+1000); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("CatchesUp", func(t *testing.T) {
		answer := make(chan error, 1)
		go func() {
			_, err := c.HashKV(t.Context(), memberAt(t, c, url), rev+1)
			answer <- err
		}()
		if _, err := real.Client(t).Put(t.Context(), "late", "value"); err != nil {
			t.Fatal(err)
		}
		if err := <-answer; err != nil {
			t.Error(err)
		}
	})
	t.Run("Identify", func(t *testing.T) {
		got, err := c.Identify(t.Context(), url)
		if s := survey(t, c); err != nil || got.MemberID != s.Candidates[0].MemberID ||
			got.AppliedIndex != s.Candidates[0].AppliedIndex || got.Revision != s.Candidates[0].Revision {
			t.Errorf("got %v, %v", got, err)
		}
		if _, err := c.Identify(t.Context(), testserver.FreeURL(t)); err == nil {
			t.Error("a dead endpoint has an identity")
		}
	})
}
