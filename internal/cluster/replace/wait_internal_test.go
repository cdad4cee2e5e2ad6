package replace

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// TestReady: it is asked before what begins a new member, once it has agreed no more, and of a member
// that has begun not at all.
func TestReady(t *testing.T) {
	s := newScene(t)
	s.target, s.wanted = &s.members[1], s.members[1].PeerURLs
	no, asked := errors.New("not ready"), 0
	r := &run{o: s.o, folders: s.f}
	r.o.Ready = func(got Settings) error {
		asked++
		if want := "m1=http://127.0.0.1:1,m2=http://127.0.0.1:2,m3=http://127.0.0.1:3"; got.InitialCluster != want {
			t.Errorf("got %s", got.InitialCluster)
		}
		return no
	}
	for _, step := range []Step{Remove, Aside, Add, Start} {
		if err := askReady(r, &s.state, step); !errors.Is(err, no) {
			t.Errorf("%s: %v", step, err)
		}
	}
	s.held = contents{entries: []string{"member"}, member: 2, cluster: 9}
	for _, step := range []Step{Start, Promote, Compare} {
		if err := askReady(r, &s.state, step); err != nil {
			t.Errorf("%s with data: %v", step, err)
		}
	}
	no, asked = nil, 0
	for range 2 {
		if err := askReady(r, &s.state, Remove); err != nil {
			t.Error(err)
		}
	}
	if asked != 1 {
		t.Errorf("asked %d times", asked)
	}
}

// TestStarted: a member that was started and is another one is not waited for.
func TestStarted(t *testing.T) {
	s := newScene(t)
	s.new(true, false)
	s.target, s.wanted = &s.members[1], s.members[1].PeerURLs
	for _, held := range []contents{{}, {used: true}, {member: 5, cluster: 9, used: true}} {
		s.held = held
		if err := checkStarted("m2", s.f, &s.state); err != nil {
			t.Errorf("%+v: %v", held, err)
		}
	}
	for _, held := range []contents{{member: 2, cluster: 9}, {member: 7, cluster: 8}} {
		s.held = held
		err := checkStarted("m2", s.f, &s.state)
		var hint *backup.HintError
		if !errors.As(err, &hint) || !strings.Contains(err.Error(), "is not the new member") ||
			!strings.Contains(hint.Hint, "initial-cluster to m1=http://127.0.0.1:1,m2=http:") {
			t.Errorf("%+v: %v, %+v", held, err, hint)
		}
	}
}

// TestAway: the WAL of another cluster may be all that is left of it, and is elsewhere.
func TestAway(t *testing.T) {
	root := t.TempDir()
	data, wal := filepath.Join(root, "data"), filepath.Join(root, "my wal")
	f, err := newFolders(data, wal)
	if err != nil {
		t.Fatal(err)
	}
	s := newScene(t)
	s.held = contents{entries: []string{"0.wal"}, member: 2, cluster: 8}
	refusal := func() string {
		err := f.checkOwner(&s.state)
		var hint *backup.HintError
		if !errors.As(err, &hint) || !strings.Contains(err.Error(), wal+" has data of another cluster") {
			t.Fatalf("%v", err)
		}
		return hint.Hint
	}
	if err := os.Mkdir(wal, 0o700); err != nil {
		t.Fatal(err)
	}
	move := "mv '" + wal + "' '" + wal + ".old'"
	hint := refusal()
	if !strings.HasSuffix(hint, "yourself: "+move) || !strings.Contains(hint, "are --data-dir and --wal") {
		t.Error(hint)
	}
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	if hint := refusal(); !strings.HasSuffix(hint, "yourself: mv "+data+" "+data+".old && "+move) {
		t.Error(hint)
	}
}

// TestMissing: without its data the place of the WAL is in doubt, unless somebody has said it.
func TestMissing(t *testing.T) {
	root := t.TempDir()
	data := filepath.Join(root, "data")
	for wal, want := range map[string]bool{
		"": true, filepath.Join(data, "member", "wal"): false, filepath.Join(root, "wal"): false,
	} {
		f, err := newFolders(data, wal)
		if err != nil {
			t.Fatal(err)
		}
		if text := f.missing(&state{}); strings.Contains(text, "No --wal-dir was given") != want {
			t.Errorf("%q: %s", wal, text)
		}
		f.known = true
		if text := f.missing(&state{}); strings.Contains(text, "No --wal-dir was given") {
			t.Errorf("%q, from files: %s", wal, text)
		}
	}
}

// TestAwait: a wait says now and then who answers.
func TestAwait(t *testing.T) {
	s := newScene(t)
	s.silent[2] = errors.New("refused")
	var told []string
	r := &run{o: s.o, folders: s.f, took: time.Now(), waited: time.Now()}
	r.o.pause, r.o.every = time.Nanosecond, time.Hour
	r.o.Waiting = func(text string) { told = append(told, text) }
	await := func() {
		if err := r.await(t.Context(), &s.state, errNotStarted, ""); err != nil {
			t.Fatal(err)
		}
	}
	await()
	if len(told) != 0 {
		t.Errorf("at once: %q", told)
	}
	r.waited = time.Now().Add(-2 * time.Hour)
	await()
	await()
	if len(told) != 1 || !strings.HasSuffix(told[0],
		"m1, m3 answer; member m2 (2) does not answer at refused; no server runs on "+s.f.dataDir) {
		t.Errorf("got %q", told)
	}
}
