package snapshot_test

import (
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
)

// pinKey is where the specification says that a pin is.
func pinKey(e snapshot.Entry) string { return e.Cluster + "/pins/" + string(e.ID) + ".json" }

func TestPin(t *testing.T) {
	s := mem.New()
	e := addManifest(t, s, manifest("prod", started, 5))
	doubtful := manifest("prod", started, 6)
	doubtful.Suspect = []string{"a reason"}
	other := addManifest(t, s, doubtful)
	for _, e := range []snapshot.Entry{e, other} {
		if err := snapshot.Pin(t.Context(), s, e, "before the upgrade: ä", "root@host"); err != nil {
			t.Fatal(err)
		}
	}
	text := string(readObject(t, s, pinKey(e)))
	for _, want := range []string{`"format": "backupd/pin/v1"`, `"id": "` + string(e.ID), `"reason": "before the upgrade: ä"`, `"by": "root@host"`, `"pinnedAt": "20`} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in %s", want, text)
		}
	}
	p, err := snapshot.FindPin(t.Context(), s, e)
	if err != nil || p == nil || p.Reason != "before the upgrade: ä" || p.By != "root@host" || p.ID != e.ID {
		t.Errorf("got %+v, %v", p, err)
	}
	var already *snapshot.PinnedError
	if err := snapshot.Pin(t.Context(), s, e, "again", ""); !errors.As(err, &already) || already.Reason != "before the upgrade: ä" || !errors.Is(err, fs.ErrExist) {
		t.Errorf("again: got %v", err)
	}
	create(t, s, "prod/pins/notes.json", []byte("not ours"))
	if all, err := snapshot.Pins(t.Context(), s, "prod"); err != nil || len(all) != 2 || all[e.ID].Reason != p.Reason || all[other.ID].ID != other.ID {
		t.Errorf("all: got %v, %v", all, err)
	}
	if err := snapshot.Unpin(t.Context(), s, e); err != nil {
		t.Fatal(err)
	}
	if p, err := snapshot.FindPin(t.Context(), s, e); p != nil || err != nil {
		t.Errorf("after unpin: got %v, %v", p, err)
	}
	var not *snapshot.NotPinnedError
	if err := snapshot.Unpin(t.Context(), s, e); !errors.As(err, &not) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("unpin again: got %v", err)
	}
}

func TestPin_Refuses(t *testing.T) {
	s := mem.New()
	e := addManifest(t, s, manifest("prod", started, 5))
	for reason, want := range map[string]string{
		"": "needs a reason", "  ": "needs a reason", "two\nlines": "control characters", strings.Repeat("ä", 501): "501 characters",
	} {
		if err := snapshot.Pin(t.Context(), s, e, reason, ""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v", reason, err)
		}
	}
	if err := snapshot.Pin(t.Context(), s, e, strings.Repeat("ä", 500), ""); err != nil {
		t.Error(err)
	}
	for name, e := range map[string]snapshot.Entry{
		"NoSuchSnapshot": {Cluster: "prod", ID: "20261120T101500Z-r5-zzzzzz"},
		"OtherCluster":   {Cluster: "lab", ID: e.ID},
		"SuspectByName":  {Cluster: "prod", ID: e.ID, Suspect: true},
	} {
		var none *snapshot.NotFoundError
		if err := snapshot.Pin(t.Context(), s, e, "reason", ""); !errors.As(err, &none) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// TestPin_Damaged: a pin that cannot be understood pins all the same.
func TestPin_Damaged(t *testing.T) {
	for name, raw := range map[string]string{
		"Nonsense": "nonsense", "Empty": "", "OtherFormat": `{"format": "backupd/pin/v9", "reason": "x"}`, "OtherID": `{"format": "backupd/pin/v1", "id": "x", "reason": "x"}`,
		"NoReason": `{"format": "backupd/pin/v1", "id": "20261120T101500Z-r5-aaaaaa"}`, "Endless": strings.Repeat("[", 1<<20),
	} {
		s := mem.New()
		e := snapshot.Entry{Cluster: "prod", ID: "20261120T101500Z-r5-aaaaaa"}
		create(t, s, pinKey(e), []byte(raw))
		if p, err := snapshot.FindPin(t.Context(), s, e); err != nil || p == nil || p.ID != e.ID || p.Reason != "the pin cannot be read" {
			t.Errorf("%s: got %+v, %v", name, p, err)
		}
		if all, err := snapshot.Pins(t.Context(), s, "prod"); err != nil || len(all) != 1 || all[e.ID].Reason == "" {
			t.Errorf("%s: got %+v, %v", name, all, err)
		}
	}
}

// TestPin_Fails: no failure of the store is taken for the absence of a pin, or
// for success.
func TestPin_Fails(t *testing.T) {
	for _, when := range []storagetest.When{storagetest.Before, storagetest.After, storagetest.Crash} {
		for n := 0; ; n++ {
			s := mem.New()
			e := addManifest(t, s, manifest("prod", started, 5))
			faulty := storagetest.FailAt(s, n, when, errFault)
			err := snapshot.Pin(t.Context(), faulty, e, "reason", "")
			if !faulty.Fired() {
				if err != nil || n != 3 {
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
	e := addManifest(t, s, manifest("prod", started, 5))
	if err := snapshot.Pin(t.Context(), s, e, "reason", ""); err != nil {
		t.Fatal(err)
	}
	for name, do := range map[string]func(storage.Store) error{
		"Find":  func(s storage.Store) error { _, err := snapshot.FindPin(t.Context(), s, e); return err },
		"Pins":  func(s storage.Store) error { _, err := snapshot.Pins(t.Context(), s, "prod"); return err },
		"Unpin": func(s storage.Store) error { return snapshot.Unpin(t.Context(), s, e) },
	} {
		for _, when := range []storagetest.When{storagetest.Before, storagetest.After} {
			if err := do(storagetest.FailAt(s, 0, when, errFault)); !errors.Is(err, errFault) {
				t.Errorf("%s: got %v", name, err)
			}
		}
	}
	if p, err := snapshot.FindPin(t.Context(), s, e); err != nil || p == nil {
		t.Errorf("got %v, %v", p, err)
	}
}
