package duty_test

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/duty"
	"github.com/etcd-backupd/backupd/internal/health"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/repository/prune"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// verified verifies a snapshot, or the newest, and compares the outcome.
func (p *process) verified(ref string, result duty.Result, text string) duty.Outcome {
	p.t.Helper()
	o := p.verify.Do(p.t.Context(), duty.Run{Snapshot: ref})
	got := o.Reason
	if o.Err != nil {
		got = o.Err.Error()
	}
	if o.Result != result || (o.Err != nil) != (result == duty.Failed) || !strings.Contains(got, text) {
		p.t.Errorf("got %+v, want %s: %q", o, result, text)
	}
	return o
}

// marked is the mark of damage that the repository holds, or nil.
func (p *process) marked(id backup.SnapshotID) *backup.Mark {
	p.t.Helper()
	in, err := p.Open(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	m, err := in.Marks().Find(p.t.Context(), id, backup.MarkDamaged)
	if err != nil {
		p.t.Fatal(err)
	}
	return m
}

// TestVerify: a defect is a mark in the repository. Another process sees it at its
// first look, and what is protected is what the snapshot before holds.
func TestVerify(t *testing.T) {
	p := newEmptyPlace(t).process()
	p.MayCreate = true
	p.verified("", duty.Passed, "there is no repository yet")
	older := p.taken()
	newest := p.changed()
	if o := p.verified("", duty.Succeeded, ""); o.Snapshot != newest.ID {
		t.Errorf("verified %s", o.Snapshot)
	}
	if f := p.Known.Now(); f.Verified.IsZero() || f.Verification != nil || p.marked(newest.ID) != nil {
		t.Errorf("got %+v", f)
	}

	mend := p.damage(newest.DataKey())
	p.pass(time.Minute)
	wants(t, p.slot(), duty.Skipped, "") // nobody knows of it
	p.pass(time.Minute)
	p.verified("", duty.Succeeded, "") // now it is the turn of the one before
	if o := p.verified("", duty.Failed, "bytes changed"); o.Snapshot != newest.ID || !errors.Is(o.Err, backup.ErrCorrupt) {
		t.Errorf("got %+v", o)
	}
	if m := p.marked(newest.ID); m == nil || m.Defect != backup.Changed || !strings.HasPrefix(m.By, "backupd on ") {
		t.Errorf("marked: %+v", m)
	}
	another := p.process()
	another.look()
	for who, s := range map[string]*process{"the same": p, "another": another} {
		f := s.Known.Now()
		if f.Newest() == nil || f.Newest().ID != older.ID || !f.Confirmed.Equal(older.StartedAt) || !f.Protected {
			t.Errorf("%s: got %+v", who, f)
		}
		s.healthy(health.Failure, "the stored snapshot "+string(newest.ID)+" is damaged: ")
	}
	another.verified(string(older.ID), duty.Succeeded, "")
	another.healthy(health.Failure, "the stored snapshot "+string(newest.ID)+" is damaged: ")

	// Its bytes are right again, and a verification says so.
	mend()
	p.look()
	p.healthy(health.Failure, " is damaged: ")
	p.verified(string(newest.ID), duty.Succeeded, "")
	if p.marked(newest.ID) != nil {
		t.Error("the mark stays")
	}
	another.look()
	for who, s := range map[string]*process{"the same": p, "another": another} {
		if f := s.Known.Now(); f.Newest().ID != newest.ID || !f.Confirmed.Equal(newest.StartedAt) {
			t.Errorf("%s: got %+v, newest %s", who, f, f.Newest().ID)
		}
		s.healthy(health.OK, "")
	}
}

// TestVerify_ReadOnly: a defect that cannot be recorded is an error of its own. The
// process that found it goes on knowing of it, whatever it looks at.
func TestVerify_ReadOnly(t *testing.T) {
	p := newPlace(t).process()
	p.backup.Policy.MinVerified = 3 // or the damaged one goes when another is taken
	older := p.taken()
	newest := p.changed()
	mend := p.damage(newest.DataKey())
	p.refuse(storage.OpCreate, "/marks/", fs.ErrPermission)
	o := p.verified("", duty.Failed, "bytes changed")
	if !errors.Is(o.Err, backup.ErrCorrupt) || !errors.Is(o.Err, fs.ErrPermission) ||
		!strings.Contains(o.Err.Error(), "mark the result of verifying snapshot") {
		t.Errorf("got %v", o.Err)
	}
	for range 2 {
		p.healthy(health.Failure, "the stored snapshot "+string(newest.ID)+" is damaged: ")
		if f := p.Known.Now(); f.Newest() == nil || f.Newest().ID != older.ID || !f.Confirmed.Equal(older.StartedAt) {
			t.Errorf("got %+v", f)
		}
		p.look()
	}
	wants(t, p.slot(), duty.Succeeded, "") // nothing counts on it
	p.healthy(health.Failure, " is damaged: ")

	// A verification that fails for another reason does not take it back.
	mend()
	before := p.hook.Before
	p.refuse(storage.OpOpen, newest.DataKey(), errDown)
	p.verified(string(newest.ID), duty.Failed, errDown.Error())
	p.look()
	p.healthy(health.Failure, " is damaged: ")
	p.hook.Before = before
	p.verified(string(newest.ID), duty.Failed, "as verified: create mark: permission denied")
	p.look()
	p.healthy(health.Warning, "the last verification failed: ")
	p.hook.Before = nil
	p.verified(string(newest.ID), duty.Succeeded, "")
	p.look()
	p.healthy(health.OK, "")

	// Nor is one remembered that is gone.
	p.hook.Before = before
	p.damage(newest.DataKey())
	p.verified(string(newest.ID), duty.Failed, "bytes changed")
	p.remove(newest.Key(), newest.DataKey())
	p.look()
	p.healthy(health.OK, "")
}

// TestVerify_Unmarkable: a mark that cannot be taken away stays what everybody
// reads, and the verification says so.
func TestVerify_Unmarkable(t *testing.T) {
	p := newPlace(t).process()
	m := p.taken()
	mend := p.damage(m.DataKey())
	p.verified("", duty.Failed, "bytes changed")
	mend()
	p.refuse(storage.OpDelete, "/marks/", fs.ErrPermission)
	if o := p.verified("", duty.Failed, "mark the result of verifying snapshot"); errors.Is(o.Err, backup.ErrCorrupt) {
		t.Errorf("got %v", o.Err)
	}
	p.look()
	p.healthy(health.Failure, " is damaged: ")
}

// TestVerify_StoredOnly: without an identity only the stored bytes are compared.
// That they are right does not disprove a content that differed.
func TestVerify_StoredOnly(t *testing.T) {
	p := newPlace(t)
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	to, err := codec.ParseRecipients([]string{id.Recipient().String()}, nil)
	if err != nil {
		t.Fatal(err)
	}
	p.codec.Recipients = to
	s := p.process()
	m := s.taken()
	s.verified("", duty.Succeeded, "")
	mend := s.damage(m.DataKey())
	s.verified("", duty.Failed, "bytes changed")
	mend()
	s.verified("", duty.Succeeded, "") // these are the stored bytes
	s.healthy(health.OK, "")
	last := func(decrypts bool) bool {
		s.Rereading.Decrypts = decrypts
		defer func() { s.Rereading.Decrypts = false }()
		f := s.process().Known.Now()
		f.Overview = s.look()
		return !f.LastVerified(s.Rereading, s.now()).IsZero()
	}
	if !last(false) || last(true) {
		t.Errorf("counts without an identity: %v, with one: %v", last(false), last(true))
	}

	in, err := s.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	item, err := in.Item(t.Context(), m.ID)
	if err != nil {
		t.Fatal(err)
	}
	differs := &backup.DefectError{Kind: backup.Content, Key: m.DataKey(), Err: backup.Corruptf("keys differ")}
	if err := in.Marks().Record(t.Context(), item, differs, "somebody"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s.verified("", duty.Failed, "keys differ")
		s.healthy(health.Failure, " is damaged: ")
	}
	if s.marked(m.ID) == nil {
		t.Error("the mark is gone")
	}
	s.verify.Identities = codec.Identities{id}
	s.verified("", duty.Succeeded, "")
	s.healthy(health.OK, "")
}

// TestVerify_Which: of its own accord a process verifies the newest snapshot, unless it was
// verified by anybody, and then the one that was read longest ago.
func TestVerify_Which(t *testing.T) {
	p := newPlace(t).process()
	p.backup.Policy.Last = 9
	var all []*backup.Manifest
	for range 3 {
		all = append(all, p.changed())
		p.pass(time.Minute)
	}
	another := p.process()
	for n, want := range []int{2, 0, 1, 2} {
		if n == 3 { // whose turn it is after a restart is known from the marks
			another = p.process()
		}
		if o := another.verified("", duty.Succeeded, ""); o.Snapshot != all[want].ID {
			t.Errorf("turn %d: %s, want %s", n, o.Snapshot, all[want].ID)
		}
		p.pass(time.Minute)
	}
	if marks := p.count("/marks/"); marks != 3 {
		t.Errorf("%d marks of three snapshots", marks)
	}
}

// TestVerify_Log: a run that verifies nothing says why in the log, for nothing else tells
// it; what it returns is not logged twice.
func TestVerify_Log(t *testing.T) {
	p := newPlace(t).process()
	var log strings.Builder
	p.Log = slog.New(slog.NewTextHandler(&log, nil))
	p.verify.Policy.Last = 9
	logged := func(reason string) {
		t.Helper()
		if got := log.String(); strings.Count(got, "nothing to verify") != 1 || !strings.Contains(got, reason) {
			t.Errorf("want %q, got %s", reason, got)
		}
		log.Reset()
	}
	p.verified("", duty.Passed, "the repository holds no verified one")
	logged("the repository holds no verified one")

	p.taken()
	p.to(3 * time.Hour) // so that it is one day
	p.Rereading.BytesPerDay = 1
	p.verified("", duty.Succeeded, "") // the first of a day may be larger
	log.Reset()
	p.verified("", duty.Passed, "verify.max-bytes-per-day")
	logged("verify.max-bytes-per-day")

	// An error is logged by the schedule, which gets it.
	p.pass(24 * time.Hour)
	p.refuse(storage.OpCreate, "/marks/", errDown)
	p.verified("", duty.Failed, errDown.Error())
	if got := log.String(); strings.Contains(got, "ERROR") {
		t.Errorf("the error is returned, and logged as well: %s", got)
	}
}

// TestVerify_Budget: the bytes of a day are what scheduled verifications may read, whoever
// read them. What could not be finished counts as well.
func TestVerify_Budget(t *testing.T) {
	p := newPlace(t).process()
	p.backup.Policy.Last = 9
	p.to(3 * time.Hour) // so that it is one day
	older := p.changed()
	newest := p.changed()
	p.Rereading.BytesPerDay = newest.Stored.Bytes + older.Stored.Bytes - 1
	p.verified("", duty.Succeeded, "")
	p.verified("", duty.Passed, "snapshot "+string(older.ID)+" is next: its ")
	another := p.process()
	another.Rereading = p.Rereading
	another.verified("", duty.Passed, "more than is left today of verify.max-bytes-per-day")
	another.verified(string(older.ID), duty.Succeeded, "") // as somebody asked for it

	p.pass(24 * time.Hour)
	p.refuse(storage.OpCreate, "/marks/", errDown)
	p.verified("", duty.Failed, errDown.Error())
	p.hook.Before = nil
	p.Rereading.BytesPerDay = 1
	p.verified("", duty.Passed, "0 B of 1 B")
	p.pass(24 * time.Hour)
	p.verified("", duty.Succeeded, "") // the first of a day may be larger
}

// TestVerify_Missing: scheduled verifications that do not happen are a warning, also after a
// restart; one by anybody ends it.
func TestVerify_Missing(t *testing.T) {
	p := newPlace(t).process()
	p.backup.Longest, p.Rereading.Longest = 1000*time.Hour, 24*time.Hour
	if at, err := p.verify.LastDone(t.Context()); err != nil || p.now().Sub(at) > time.Minute {
		t.Errorf("with nothing to verify: missed since %v, %v", at, err)
	}
	m := p.taken()
	p.healthy(health.OK, "")
	p.pass(48*time.Hour + 2*time.Minute)
	for range 2 {
		p.healthy(health.Warning, "no stored snapshot was ever verified")
		if at, err := p.verify.LastDone(t.Context()); err != nil || !at.IsZero() {
			t.Errorf("last done at %v, %v", at, err)
		}
		rereading := p.Rereading
		p = p.process()
		p.backup.Longest, p.Rereading = 1000*time.Hour, rereading
		p.look()
	}
	another := p.process()
	another.verified(string(m.ID), duty.Succeeded, "")
	p.look()
	p.healthy(health.OK, "")
	at, err := p.verify.LastDone(t.Context())
	if err != nil || p.now().Sub(at) > time.Minute {
		t.Errorf("last done at %v, %v", at, err)
	}
	p.pass(48*time.Hour + 2*time.Minute)
	p.healthy(health.Warning, "the last verification of a stored snapshot was 48h2m")

	// One that cannot be read is no verification.
	p.refuse(storage.OpOpen, m.DataKey(), errDown)
	p.verified("", duty.Failed, errDown.Error())
	p.hook.Before = nil
	p.healthy(health.Warning, "the last verification failed: ")
	p.pass(time.Minute)
	another.verified(string(m.ID), duty.Succeeded, "")
	p.look()
	p.healthy(health.OK, "") // another process could
}

// TestVerify_Unknown: a request for a snapshot that does not exist fails, and says
// nothing about the cluster.
func TestVerify_Unknown(t *testing.T) {
	p := newPlace(t).process()
	p.taken()
	p.verified("20260101T000000Z-r5-aaaaaa", duty.Failed, "no such snapshot")
	if f := p.Known.Now(); f.Verification != nil || !f.Verified.IsZero() {
		t.Errorf("got %+v", f)
	}
	p.look()
	p.healthy(health.OK, "")
}

// TestVerify_Suspect: that something spoke against a snapshot when it was taken is
// an error to report, and no damage.
func TestVerify_Suspect(t *testing.T) {
	p := newPlace(t).process()
	m := *p.taken()
	p.remove(m.Key())
	m.Suspect = []string{"a member answered another hash"}
	raw, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	p.write(m.Key(), raw)
	o := p.verified(string(m.ID), duty.Failed, "a member answered another hash")
	if f := p.Known.Now(); !errors.Is(o.Err, backup.ErrCorrupt) || !f.Verified.IsZero() || f.Verification != nil ||
		p.marked(m.ID) != nil {
		t.Errorf("got %+v, %+v", o, f)
	}
}

// TestVerify_NotRead: a verification that cannot read says nothing about the
// snapshot, and is a warning.
func TestVerify_NotRead(t *testing.T) {
	p := newPlace(t).process()
	m := p.taken()
	for what, key := range map[string]string{
		"the data": m.DataKey(), "the manifest": m.Key(), "the marker": backup.MarkerKey,
	} {
		p.refuse(storage.OpOpen, key, errDown)
		if o := p.verified("", duty.Failed, errDown.Error()); errors.Is(o.Err, backup.ErrCorrupt) {
			t.Errorf("%s: got %v", what, o.Err)
		}
		p.hook.Before = nil
		if p.marked(m.ID) != nil {
			t.Errorf("%s: it is marked", what)
		}
		p.healthy(health.Warning, "the last verification failed: ")
	}
	p.verified("20200101", duty.Failed, "find the snapshot to verify: no such snapshot: 20200101")
	p.verified("", duty.Succeeded, "")
	p.healthy(health.OK, "")
}

// TestVerify_Stopped: a verification that is stopped says nothing.
func TestVerify_Stopped(t *testing.T) {
	p := newPlace(t).process()
	m := p.taken()
	for _, at := range []string{backup.MarkerKey, m.Key(), m.DataKey()} {
		ctx, cancel := context.WithCancel(t.Context())
		p.hook.Before = func(_ context.Context, op storage.Op, key string) error {
			if op == storage.OpOpen && key == at {
				cancel()
			}
			return ctx.Err()
		}
		if o := p.verify.Do(ctx, duty.Run{}); o.Result != duty.Failed || !errors.Is(o.Err, context.Canceled) {
			t.Errorf("%s: got %+v", at, o)
		}
		p.hook.Before = nil
		if f := p.Known.Now(); !f.Verified.IsZero() || f.Verification != nil {
			t.Errorf("%s: got %+v", at, f)
		}
	}
	p.healthy(health.OK, "")
}

// TestVerify_StoppedTooLate: bytes that are wrong are a defect, also where the process is
// stopped while it finds out whose they are.
func TestVerify_StoppedTooLate(t *testing.T) {
	p := newPlace(t).process()
	m := p.taken()
	p.damage(m.DataKey())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	looked := 0
	p.hook.Before = func(_ context.Context, op storage.Op, key string) error {
		if op == storage.OpStat && key == m.DataKey() {
			if looked++; looked > 1 {
				cancel()
			}
		}
		return ctx.Err()
	}
	if o := p.verify.Do(ctx, duty.Run{}); o.Result != duty.Failed || !errors.Is(o.Err, backup.ErrCorrupt) {
		t.Errorf("got %+v", o)
	}
	p.hook.Before = nil
	if f := p.Known.Now(); !errors.Is(f.Verification, backup.ErrCorrupt) || f.Verified.IsZero() {
		t.Errorf("known: verified at %v, %v", f.Verified, f.Verification)
	}
	p.look()
	p.healthy(health.Failure, " is damaged: ")
}

// TestVerify_HalfRead: bytes that are wrong are a defect, also where the store goes
// away before anybody can find out whose they are.
func TestVerify_HalfRead(t *testing.T) {
	p := newPlace(t).process()
	m := p.taken()
	p.damage(m.DataKey())
	looked := 0
	p.hook.Before = func(_ context.Context, op storage.Op, key string) error {
		if op == storage.OpStat && key == m.DataKey() {
			if looked++; looked > 1 {
				return errDown
			}
		}
		return nil
	}
	o := p.verified("", duty.Failed, "bytes changed")
	if !errors.Is(o.Err, errDown) || !errors.Is(o.Err, backup.ErrCorrupt) {
		t.Errorf("got %v", o.Err)
	}
	p.hook.Before = nil
	if mark := p.marked(m.ID); mark == nil || mark.Defect != backup.Changed {
		t.Errorf("marked: %+v", mark)
	}
	p.healthy(health.Failure, " is damaged: ")
}

// TestVerify_Removed: what is removed while it is verified was not damaged, and the
// defect of a snapshot that is gone is none.
func TestVerify_Removed(t *testing.T) {
	p := newPlace(t).process()
	p.taken()
	m := p.changed()
	p.hook.Before = func(_ context.Context, op storage.Op, key string) error {
		if op == storage.OpStat && key == m.DataKey() {
			p.remove(m.Key(), m.DataKey())
		}
		return nil
	}
	p.verified("", duty.Passed, "no such snapshot: "+string(m.ID))
	p.hook.Before = nil
	if f := p.Known.Now(); f.Verification != nil || !f.Verified.IsZero() {
		t.Errorf("got %+v", f)
	}
	p.look()
	p.healthy(health.OK, "")
	m = p.changed()
	p.damage(m.DataKey())
	p.verified("", duty.Failed, "bytes changed")
	in := repository.At(p.mem, "").Cluster("prod")
	if err := prune.Delete(t.Context(), in, m.ID, "op"); err != nil {
		t.Fatal(err)
	}
	p.look()
	p.healthy(health.OK, "")
}

// TestVerify_MarkHangs: a store that hangs when the result is written holds up nothing for
// long, and what was read counts.
func TestVerify_MarkHangs(t *testing.T) {
	p := newPlace(t).process()
	p.taken()
	var stage backup.Stage
	p.hook.Before = func(ctx context.Context, op storage.Op, _ string) error {
		if op != storage.OpCreate {
			return nil
		}
		<-ctx.Done()
		return ctx.Err()
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	o := p.verify.Do(ctx, duty.Run{Progress: func(s backup.Stage, _, _ int64) {
		if stage = s; s == backup.StageMark {
			p.Reach = time.Second // not before: all else may take its time
		}
	}})
	if o.Result != duty.Failed || o.Err == nil || !strings.Contains(o.Err.Error(), "no answer within 1s") {
		t.Errorf("got %+v", o)
	}
	if stage != backup.StageMark {
		t.Errorf("it hung at the stage %s", stage)
	}
}

// TestReachWithin: a time-out that is short leaves time to receive the database.
func TestReachWithin(t *testing.T) {
	for timeout, want := range map[time.Duration]time.Duration{
		0: 20 * time.Second, time.Hour: 20 * time.Second, 15 * time.Second: 7500 * time.Millisecond,
	} {
		if got := duty.ReachWithin(timeout); got != want {
			t.Errorf("%v: got %v", timeout, got)
		}
	}
}
