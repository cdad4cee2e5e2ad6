package duty

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/health"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) time.Time { return noon.Add(-d) }

// stored is a snapshot of prod that was never taken.
func storedAt(at time.Time, rev backup.Revision) *backup.Manifest {
	blob := backup.Blob{Bytes: 4, SHA256: backup.Digest{byte(rev)}}
	return &backup.Manifest{
		Format: backup.ManifestFormat, Repository: "the-only-repository",
		ID: backup.NewDataName(at).WithRevision(rev), Timeline: "t1-aaaaaa",
		FinishedAt: at, Stored: blob, Capture: backup.Capture{
			Cluster: "prod", StartedAt: at, Members: []backup.Member{{ID: 1}}, Revision: rev, Plain: blob,
		},
	}
}

// put stores snapshots.
func put(t *testing.T, s storage.Store, all ...*backup.Manifest) {
	t.Helper()
	for _, m := range all {
		raw, err := m.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		create(t, s, m.DataKey(), "data")
		create(t, s, m.Key(), string(raw))
	}
}

func create(t *testing.T, s storage.Store, key, text string) {
	t.Helper()
	if err := s.Create(t.Context(), key, strings.NewReader(text)); err != nil && !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
}

// overview is what a look at a store finds.
func overview(t *testing.T, s storage.Store, now time.Time) *repository.Overview {
	t.Helper()
	o, err := repository.At(s, "any").Cluster("prod").Look(t.Context(), 1, nil, now)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// TestHealth judges facts. A problem is one line.
func TestHealth(t *testing.T) {
	broken := errors.New("connection refused\nby all")
	good := storedAt(ago(time.Hour), 7)
	suspect := storedAt(ago(time.Minute), 8)
	suspect.Suspect = []string{"a member answered another hash"}
	future := storedAt(noon.Add(time.Hour), 9)
	copied := *good
	copied.Revision, copied.ID = 8, good.ID.DataName().WithRevision(8)
	defect := &backup.DefectError{Kind: backup.Changed, Key: good.DataKey(), Err: backup.Corruptf("bytes")}

	whole := Facts{Confirmed: ago(time.Hour)}
	with := func(change func(*Facts)) Facts { f := whole; change(&f); return f }
	confirmed := func(age time.Duration, change func(*Facts)) Facts {
		return with(func(f *Facts) { f.Confirmed = ago(age); change(f) })
	}
	none := func(*Facts) {}
	seen := func(all ...*backup.Manifest) func(*Facts) {
		return func(f *Facts) {
			s := mem.New()
			put(t, s, all...)
			f.Overview = overview(t, s, noon)
		}
	}
	for _, c := range []struct {
		name    string
		facts   Facts
		level   health.Level
		problem string
		hint    string
	}{
		{"protected", whole, health.OK, "", ""},
		{"protected, and seen", with(seen(good)), health.OK, "", ""},
		{"a slot has just been missed", confirmed(119*time.Minute, none), health.OK, "", ""},
		{"with its jitter", confirmed(129*time.Minute, none), health.OK, "", ""},
		{"two slots were missed", confirmed(131*time.Minute, none),
			health.Failure, "the last verified snapshot is 2h11m0s old", ""},
		{"long before this process started", confirmed(100*time.Hour, func(f *Facts) { f.Since = noon }),
			health.Failure, "100h0m0s old", ""},
		{"the schedule has just been made shorter", confirmed(100*time.Hour, func(f *Facts) { f.Changed = ago(time.Hour) }),
			health.OK, "", ""},
		{"the schedule was made shorter", confirmed(100*time.Hour, func(f *Facts) { f.Changed = ago(3 * time.Hour) }),
			health.Failure, "100h0m0s old", ""},
		{"and why", confirmed(3*time.Hour, func(f *Facts) { f.Failed, f.ReadErr = broken, fs.ErrPermission }),
			health.Failure, "old: connection refused; by all", ""},
		{"the store is why", confirmed(3*time.Hour, func(f *Facts) { f.ReadErr = fs.ErrPermission }),
			health.Failure, "old: permission denied", ""},
		{"new", Facts{Since: noon}, health.Warning, "there is no verified snapshot yet", ""},
		{"never", Facts{Since: ago(3 * time.Hour)}, health.Failure, "there is no verified snapshot", ""},
		{"never, and why", Facts{Since: ago(3 * time.Hour), Failed: broken},
			health.Failure, "there is no verified snapshot: connection refused", ""},
		{"all are gone", Facts{Since: noon, Protected: true}, health.Failure,
			"the repository no longer holds a verified snapshot", ""},
		{"failed once", with(func(f *Facts) { f.Failed = broken }),
			health.Warning, "the last backup failed: connection refused; by all", ""},
		{"not readable", with(func(f *Facts) { f.ReadErr = broken }), health.Warning, "the repository cannot be read: ", ""},
		{"not verified", with(func(f *Facts) { f.Verification = broken }),
			health.Warning, "the last verification failed: ", ""},
		{"not verified, by damage of no snapshot", with(func(f *Facts) { f.Verification = backup.Corruptf("the marker") }),
			health.Warning, "the last verification failed: the marker", ""},
		{"a defect that is gone", with(func(f *Facts) { seen(good)(f); f.Verification = defect }), health.OK, "", ""},
		{"a defect", with(func(f *Facts) {
			seen(good)(f)
			f.Overview, f.Verification = f.Overview.Judged(good.ID, defect), defect
		}), health.Failure, "the stored snapshot " + string(good.ID) + " is damaged: ", "backupd verify --cluster prod "},
		{"not pruned", with(func(f *Facts) { f.PruneErr = broken }), health.Warning, "old snapshots cannot be removed: ", ""},
		{"suspect", with(seen(good, suspect)), health.Failure, "the newest snapshot, " + string(suspect.ID) + ", is suspect",
			"backupd show --cluster prod " + string(suspect.ID)},
		{"data missing", with(func(f *Facts) {
			s := mem.New()
			put(t, s, good)
			if err := s.Delete(t.Context(), good.DataKey()); err != nil {
				t.Fatal(err)
			}
			f.Overview = overview(t, s, noon)
		}), health.Failure, "the data of snapshot " + string(good.ID) + " is not in the repository",
			"backupd rm --cluster prod "},
		{"copied", with(seen(good, &copied)), health.Failure, "two manifests refer to the data of snapshot ", "by hand"},
		{"a clock was wrong", with(seen(good, future)),
			health.Warning, "snapshot " + string(future.ID) + " is from the future",
			"may be the latest"},
		{"the worst first", confirmed(3*time.Hour, func(f *Facts) {
			seen(good, suspect, future)(f)
			f.Failed, f.PruneErr = broken, broken
		}), health.Failure, "is suspect", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.facts.Read = noon; c.name == "new" {
				c.facts.Read = ago(time.Minute)
			}
			k := &Knowledge{facts: c.facts}
			b := &Backup{Subject: &Subject{Key: Key{Cluster: "prod"}, Known: k}, Longest: time.Hour, Jitter: 10 * time.Minute}
			got := b.Health(noon)
			if got.Level != c.level || !strings.Contains(got.Problem, c.problem) || c.problem == "" && got.Problem != "" ||
				strings.Contains(got.Problem, "\n") || !strings.Contains(got.Hint, c.hint) {
				t.Errorf("got %+v", got)
			}
			// Who shows it finds a hint in the cause.
			if why := strings.Contains(got.Problem, ": "); why && got.Err == nil && got.Hint == "" {
				t.Errorf("no cause: %+v", got)
			}
		})
	}
	t.Run("not read yet", func(t *testing.T) {
		b := &Backup{Subject: &Subject{Known: NewKnowledge(noon, "")}, Longest: time.Hour}
		if got := b.Health(noon); got.Level != health.Warning || got.Problem != "the repository was not read yet" {
			t.Errorf("got %+v", got)
		}
	})
}
