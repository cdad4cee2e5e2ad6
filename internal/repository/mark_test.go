package repository_test

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
)

// pinKey returns the key of a pin, as the specification has it.
func pinKey(m *backup.Manifest) string { return m.Cluster + "/marks/" + string(m.ID) + ".pin.json" }

// damagedKey returns the key of a mark of damage, as the specification has it.
func damagedKey(m *backup.Manifest) string {
	return m.Cluster + "/marks/" + string(m.ID) + ".damaged.json"
}

func pin(ctx context.Context, s storage.Store, m *backup.Manifest, reason, by string) error {
	return in(s).Cluster(m.Cluster).Marks().Pin(ctx, item(m), reason, by)
}

func unpin(ctx context.Context, s storage.Store, m *backup.Manifest) error {
	return in(s).Cluster(m.Cluster).Marks().Remove(ctx, m.ID, backup.MarkPin)
}

func findPin(ctx context.Context, s storage.Store, m *backup.Manifest) (*backup.Mark, error) {
	return in(s).Cluster(m.Cluster).Marks().Find(ctx, m.ID, backup.MarkPin)
}

func TestPin(t *testing.T) {
	s := mem.New()
	m := addManifest(t, s, manifest("prod", started, 5))
	other := addManifest(t, s, suspectManifest(started, 6))
	for _, m := range []*backup.Manifest{m, other} {
		if err := pin(t.Context(), s, m, "before the upgrade: ä", "root@host"); err != nil {
			t.Fatal(err)
		}
	}
	text := string(readObject(t, s, pinKey(m)))
	for _, want := range []string{
		`"format": "backupd/mark/v1"`, `"kind": "pin"`, `"id": "` + string(m.ID), `"reason": "before the upgrade: ä"`,
		`"by": "root@host"`, `"at": "20`, `"seal": "`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in %s", want, text)
		}
	}
	p, err := findPin(t.Context(), s, m)
	if err != nil || p == nil || p.Reason != "before the upgrade: ä" || p.By != "root@host" || p.ID != m.ID {
		t.Errorf("got %+v, %v", p, err)
	}
	var already *repository.MarkedError
	err = pin(t.Context(), s, m, "again", "")
	if !errors.As(err, &already) || already.Reason != "before the upgrade: ä" || !errors.Is(err, fs.ErrExist) {
		t.Errorf("again: got %v", err)
	}
	create(t, s, "prod/marks/notes.json", []byte("not ours"))
	o := look(t, prod(s), 1, started)
	for _, m := range []*backup.Manifest{m, other} {
		i, got := find(t, prod(s), m.ID), o.Mark(m.ID, backup.MarkPin)
		if got == nil || got.Reason != p.Reason || got.ID != m.ID || !i.Pinned() {
			t.Errorf("listed: got %v of %+v", got, i)
		}
	}
	if err := unpin(t.Context(), s, m); err != nil {
		t.Fatal(err)
	}
	if p, err := findPin(t.Context(), s, m); p != nil || err != nil {
		t.Errorf("after unpin: got %v, %v", p, err)
	}
	var none *repository.NotFoundError
	err = unpin(t.Context(), s, m)
	if !errors.As(err, &none) || !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "is not pinned") {
		t.Errorf("unpin again: got %v", err)
	}
}

func TestPin_Refuses(t *testing.T) {
	s := mem.New()
	m := addManifest(t, s, manifest("prod", started, 5))
	for reason, want := range map[string]string{
		"": "needs a reason", "  ": "needs a reason", "two\nlines": "control characters",
		strings.Repeat("ä", 501): "501 characters",
	} {
		if err := pin(t.Context(), s, m, reason, ""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v", reason, err)
		}
	}
	if err := pin(t.Context(), s, m, strings.Repeat("ä", 500), ""); err != nil {
		t.Error(err)
	}
	other, lab, doubtful := *m, *m, *m
	other.ID, lab.Cluster, doubtful.Suspect = "20261120T101500Z-r5-zzzzzz", "lab", []string{"a reason"}
	for name, m := range map[string]*backup.Manifest{
		"NoSuchSnapshot": &other, "OtherCluster": &lab, "SuspectByName": &doubtful,
	} {
		var none *repository.NotFoundError
		if err := pin(t.Context(), s, m, "reason", ""); !errors.As(err, &none) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// TestPin_Damaged: a pin that cannot be parsed pins the snapshot too.
func TestPin_Damaged(t *testing.T) {
	m := manifest("prod", started, 5)
	other := backup.Mark{Format: backup.MarkFormat, Kind: backup.MarkPin, ID: "20261120T101500Z-r5-aaaaaa", Reason: "x"}
	otherKind := backup.Mark{Format: backup.MarkFormat, Kind: backup.MarkDamaged, ID: m.ID, Reason: "x"}
	sealed := func(mark backup.Mark) string {
		raw, err := mark.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	for name, raw := range map[string]string{
		"Nonsense": "nonsense", "Empty": "", "OtherFormat": `{"format": "backupd/mark/v9", "reason": "x"}`,
		"OtherID": sealed(other), "OtherKind": sealed(otherKind),
		"Changed": strings.Replace(sealed(otherKind), `"x"`, `"y"`, 1),
		"NoSeal":  `{"format": "backupd/mark/v1", "kind": "pin", "id": "` + string(m.ID) + `", "reason": "x"}`,
		"Endless": strings.Repeat("[", 1<<20),
	} {
		s := mem.New()
		create(t, s, pinKey(m), []byte(raw))
		if p, err := findPin(t.Context(), s, m); err != nil || p == nil || p.ID != m.ID || p.Kind != backup.MarkPin ||
			!strings.Contains(p.Reason, "cannot be read") {
			t.Errorf("%s: got %+v, %v", name, p, err)
		}
		addSnapshot(t, s, m)
		if p := look(t, prod(s), 1, started).Mark(m.ID, backup.MarkPin); p == nil || p.Reason == "" {
			t.Errorf("%s: got %+v", name, p)
		}
	}
}

// TestPin_Fails: no failure of the store is taken for the absence of a pin, or
// for success.
func TestPin_Fails(t *testing.T) {
	for _, when := range moments {
		for n := 0; ; n++ {
			s := mem.New()
			m := addManifest(t, s, manifest("prod", started, 5))
			faulty := storagetest.FailAt(s, n, when, errFault)
			err := pin(t.Context(), faulty, m, "reason", "")
			if !faulty.Fired() {
				if err != nil || n != 4 {
					t.Errorf("%d operations, error %v", n, err)
				}
				break
			}
			if !errors.Is(err, errFault) {
				t.Errorf("operation %d: got %v", n, err)
			}
		}
	}
	s := mem.New()
	m := addManifest(t, s, manifest("prod", started, 5))
	if err := pin(t.Context(), s, m, "reason", ""); err != nil {
		t.Fatal(err)
	}
	for name, do := range map[string]func(storage.Store) error{
		"Find":  func(s storage.Store) error { _, err := findPin(t.Context(), s, m); return err },
		"Unpin": func(s storage.Store) error { return unpin(t.Context(), s, m) },
	} {
		for _, when := range []storagetest.When{storagetest.Before, storagetest.After} {
			if err := do(storagetest.FailAt(s, 0, when, errFault)); !errors.Is(err, errFault) {
				t.Errorf("%s: got %v", name, err)
			}
		}
	}
	for n := range 4 { // three listings, the mark
		for _, when := range []storagetest.When{storagetest.Before, storagetest.After} {
			faulty := storagetest.FailAt(s, n, when, errFault)
			if _, err := prod(faulty).Look(t.Context(), 0, nil, started); !errors.Is(err, errFault) {
				t.Errorf("Look, operation %d: got %v", n, err)
			}
		}
	}
	if p, err := findPin(t.Context(), s, m); err != nil || p == nil {
		t.Errorf("got %v, %v", p, err)
	}
}

// TestMark_Known: a mark that an earlier overview has is not read again.
func TestMark_Known(t *testing.T) {
	s := mem.New()
	all := daily(t, s, 4)
	for _, m := range all[:2] {
		if err := pin(t.Context(), s, m, "reason", ""); err != nil {
			t.Fatal(err)
		}
	}
	before := look(t, prod(s), 1, started)
	if err := errors.Join(unpin(t.Context(), s, all[0]), pin(t.Context(), s, all[2], "new", "")); err != nil {
		t.Fatal(err)
	}
	traced := storagetest.Trace(s)
	o, err := prod(traced).Look(t.Context(), 1, before, started)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(traced.String(), "open prod/marks/"); n != 1 ||
		!slices.Contains(traced.Lines(), "open "+pinKey(all[2])) {
		t.Errorf("marks were read %d times:\n%s", n, traced)
	}
	for n, want := range []string{"", "reason", "new", ""} {
		if m := o.Mark(all[n].ID, backup.MarkPin); (m == nil) != (want == "") || m != nil && m.Reason != want {
			t.Errorf("%d: got %v, want %q", n, m, want)
		}
	}
}
