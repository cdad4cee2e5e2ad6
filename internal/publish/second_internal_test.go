package publish

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// plain is the layout in which one rename puts everything into place.
var plain = layout{wal: "", before: "nothing", exchange: true}

// crashBefore stops everything from the first change on that is so.
func crashBefore(is func(op, path string) bool) Hook {
	crashed := false
	return func(op, path string) error {
		if crashed = crashed || is(op, path); crashed {
			return errCrash
		}
		return nil
	}
}

// killed is a site whose restore was killed there.
func killed(t *testing.T, l layout, is func(op, path string) bool) *site {
	t.Helper()
	s := newSite(t, l)
	if err := s.run(t, crashBefore(is)); !errors.Is(err, errCrash) {
		t.Fatalf("it was not interrupted: %v", err)
	}
	return s
}

func ofJournal(op string) func(op, path string) bool {
	return func(o, path string) bool { return o == op && filepath.Base(path) == journalName }
}

// TestPublish_NewParents: the target lies in folders that are made for it. Their names
// are durable before the journal is there, which names them.
func TestPublish_NewParents(t *testing.T) {
	s := newSite(t, plain)
	s.data = filepath.Join(s.root, "a", "b", "data")
	s.wal = filepath.Join(s.data, "member", "wal")
	var synced []string
	journal := false
	ok(t, s.run(t, func(op, path string) error {
		journal = journal || ofJournal("rename")(op, path)
		if op == "sync" && !journal {
			synced = append(synced, path)
		}
		return nil
	}))
	for _, dir := range []string{s.root, filepath.Join(s.root, "a"), filepath.Join(s.root, "a", "b")} {
		if !slices.Contains(synced, dir) {
			t.Errorf("%s is not synced before the journal is there: %q", dir, synced)
		}
	}
	s.checkDone(t, "at the end")
}

// TestFinish_Lost: somebody removed what was put into place. To finish then is no
// success.
func TestFinish_Lost(t *testing.T) {
	s := killed(t, plain, ofJournal("remove"))
	if got := s.state(); got != "new new" {
		t.Fatalf("etcd would find %q", got)
	}
	ok(t, os.RemoveAll(s.data))
	done, err := s.finish(nil)
	var hint *backup.HintError
	if done != nil || err == nil || !strings.Contains(err.Error(), "lost") || !errors.As(err, &hint) {
		t.Errorf("got %+v, %v", done, err)
	}
}

// TestTidy_Journal: between the look for a journal and the lock, another process has
// written one, and was killed. Its staging folder is not tidied away.
func TestTidy_Journal(t *testing.T) {
	s := killed(t, plain, func(op, path string) bool { return op == "rename" && filepath.Base(path) == "data" })
	ok(t, tidy(changer{}, stagings(s.data)[0]))
	if done, err := s.finish(nil); done == nil || err != nil {
		t.Fatalf("got %+v, %v", done, err)
	}
	s.checkDone(t, "at the end")
}

// TestPutAside_Neither: what lies at both ends of a move is of somebody else. It is
// not touched.
func TestPutAside_Neither(t *testing.T) {
	root := scratch(t)
	m := move{From: filepath.Join(root, "from"), To: filepath.Join(root, "to"), Aside: filepath.Join(root, "aside")}
	write(t, m.From, "a stranger's")
	write(t, m.To, "another stranger's")
	if err := m.do(changer{}); err == nil {
		t.Error("no error")
	}
	for path, want := range map[string]string{m.From: "a stranger's", m.To: "another stranger's"} {
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("%s holds %q, %v", path, got, err)
		}
	}
}
