package duty_test

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/duty"
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
		s.healthy(duty.Failure, "the stored snapshot "+string(newest.ID)+" is damaged: ")
	}
	another.verified(string(older.ID), duty.Succeeded, "")
	another.healthy(duty.Failure, "the stored snapshot "+string(newest.ID)+" is damaged: ")

	// Its bytes are right again, and a verification says so.
	mend()
	p.look()
	p.healthy(duty.Failure, " is damaged: ")
	p.verified("", duty.Succeeded, "")
	if p.marked(newest.ID) != nil {
		t.Error("the mark stays")
	}
	another.look()
	for who, s := range map[string]*process{"the same": p, "another": another} {
		if f := s.Known.Now(); f.Newest().ID != newest.ID || !f.Confirmed.Equal(newest.StartedAt) {
			t.Errorf("%s: got %+v, newest %s", who, f, f.Newest().ID)
		}
		s.healthy(duty.OK, "")
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
		p.healthy(duty.Failure, "the stored snapshot "+string(newest.ID)+" is damaged: ")
		if f := p.Known.Now(); f.Newest() == nil || f.Newest().ID != older.ID || !f.Confirmed.Equal(older.StartedAt) {
			t.Errorf("got %+v", f)
		}
		p.look()
	}
	wants(t, p.slot(), duty.Succeeded, "") // nothing counts on it
	p.healthy(duty.Failure, " is damaged: ")

	// A verification that fails for another reason does not take it back.
	mend()
	before := p.hook.Before
	p.refuse(storage.OpOpen, newest.DataKey(), errDown)
	p.verified(string(newest.ID), duty.Failed, errDown.Error())
	p.look()
	p.healthy(duty.Failure, " is damaged: ")
	p.hook.Before = before
	p.verified(string(newest.ID), duty.Succeeded, "")
	p.look()
	p.healthy(duty.OK, "")

	// Nor is one remembered that is gone.
	p.damage(newest.DataKey())
	p.verified(string(newest.ID), duty.Failed, "bytes changed")
	p.remove(newest.Key(), newest.DataKey())
	p.look()
	p.healthy(duty.OK, "")
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
	p.healthy(duty.Failure, " is damaged: ")
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
	s.healthy(duty.OK, "")

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
		s.healthy(duty.Failure, " is damaged: ")
	}
	if s.marked(m.ID) == nil {
		t.Error("the mark is gone")
	}
	s.verify.Identities = codec.Identities{id}
	s.verified("", duty.Succeeded, "")
	s.healthy(duty.OK, "")
}

// TestVerify_Which: of its own accord a process verifies the latest of the snapshots
// that are not suspect, whatever the clocks said.
func TestVerify_Which(t *testing.T) {
	p := newPlace(t).process()
	p.put()
	m := p.taken()
	other := func(later time.Duration, further backup.Revision, timeline string) *backup.Manifest {
		out := *m
		out.StartedAt, out.Revision, out.Timeline = m.StartedAt.Add(later), m.Revision+further, timeline
		out.HighWaterRevision = max(m.HighWaterRevision, out.Revision)
		return p.create(out) // it is no database
	}
	which := func(when string, want *backup.Manifest) {
		t.Helper()
		o := p.verify.Do(t.Context(), duty.Run{})
		if o.Snapshot != want.ID || (o.Result == duty.Succeeded) != (want == m) {
			t.Errorf("%s: got %+v, want %s", when, o, want.ID)
		}
	}
	gone := func(all ...*backup.Manifest) {
		for _, m := range all {
			p.remove(m.Key(), m.DataKey())
		}
	}
	const year = 365 * 24 * time.Hour
	suspect := p.create(suspected(m, time.Second))
	behind, ahead := other(2*time.Second, -1, m.Timeline), other(year, -1, m.Timeline)
	which("others are newer, and not as far", m)
	p.look()
	p.healthy(duty.Failure, "the newest snapshot, "+string(suspect.ID)+", is suspect")
	gone(behind, suspect)
	p.look()
	p.healthy(duty.Warning, "snapshot "+string(ahead.ID)+" is from the future")
	other(-year, 5, "t9-zzzzzz")
	p.look()
	p.healthy(duty.Failure, "nobody has accepted")
	foreign := other(-year, 6, "t9-zzzzzz")
	which("the latest is not known, and this is of the newest history", foreign)
	for _, key := range p.keys() {
		if strings.Contains(key, "t9-zzzzzz") {
			p.remove(key)
		}
	}
	latest := other(2*year, 1, m.Timeline)
	which("the latest is from the future", latest)
	gone(m, latest)
	which("only one from the future is left", ahead)
	gone(ahead)
	p.verified("", duty.Passed, "the repository holds no verified one of cluster prod")
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
	p.healthy(duty.OK, "")
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
		p.healthy(duty.Warning, "the last verification failed: ")
	}
	p.verified("20200101", duty.Failed, "find the snapshot to verify: no such snapshot: 20200101")
	p.verified("", duty.Succeeded, "")
	p.healthy(duty.OK, "")
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
	p.healthy(duty.OK, "")
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
	p.healthy(duty.Failure, " is damaged: ")
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
	p.healthy(duty.Failure, " is damaged: ")
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
	p.healthy(duty.OK, "")
	m = p.changed()
	p.damage(m.DataKey())
	p.verified("", duty.Failed, "bytes changed")
	in := repository.At(p.mem, "").Cluster("prod")
	if err := prune.Delete(t.Context(), in, m.ID, "op"); err != nil {
		t.Fatal(err)
	}
	p.look()
	p.healthy(duty.OK, "")
}
