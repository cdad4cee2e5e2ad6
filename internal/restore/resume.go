package restore

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"slices"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/publish"
)

// InterruptedError is an interrupted restore that must be finished before another one
// to the same folders. It is a refusal.
type InterruptedError = publish.InterruptedError

// note is what the journal of a restore has about it.
type note struct {
	Summary Summary `json:"summary"`
	Asked   asked   `json:"asked"`
	// Undo is there if it is that of an undo: see the package undo.
	Undo json.RawMessage `json:"undo,omitempty"`
}

// asked is everything that was asked of a restore, and the identity of its source. A
// restore with another answer to any of it is another restore.
type asked struct {
	Bytes     int64         `json:"bytes"`
	SHA256    backup.Digest `json:"sha256"`
	Request   Request       `json:"request"`
	Name      string        `json:"name,omitempty"`
	DataDir   string        `json:"dataDir,omitempty"`
	WALDir    string        `json:"walDir,omitempty"`
	OutputDir string        `json:"outputDir,omitempty"`
	Places    []LocalPlace  `json:"places,omitempty"`
	PeerURLs  []string      `json:"peerURLs,omitempty"`
	Owner     *Owner        `json:"owner,omitempty"`

	Replace      bool `json:"replace,omitempty"`
	AllowRunning bool `json:"allowRunning,omitempty"`
}

func newAsked(s *Site, r Request, o Origin) (asked, error) {
	a := asked{
		Bytes: o.Bytes, SHA256: o.SHA256, Request: r,
		Name: s.Name, WALDir: s.WALDir, OutputDir: s.OutputDir, Places: s.Places, PeerURLs: s.PeerURLs,
		Owner: s.Owner, Replace: s.Replace, AllowRunning: s.AllowRunning,
	}
	if s.OutputDir == "" && len(s.Places) == 0 {
		a.DataDir = s.dataDir()
	}
	for _, dir := range []*string{&a.DataDir, &a.WALDir, &a.OutputDir} {
		if *dir == "" {
			continue
		}
		var err error
		if *dir, err = publish.Resolve(*dir); err != nil {
			return a, err
		}
	}
	return a, nil
}

// differences names everything in which b is another restore than a.
func (a asked) differences(b asked) []string {
	var out []string
	auto := a.Request.AutoBump && b.Request.AutoBump // later it may come to another number, and is the same restore
	for _, d := range []struct {
		what  string
		equal bool
	}{
		{"the snapshot", a.Bytes == b.Bytes && a.SHA256 == b.SHA256},
		{"--initial-cluster", a.Request.InitialCluster == b.Request.InitialCluster},
		{"--initial-cluster-token", a.Request.Token == b.Request.Token},
		{"--bump-revision", auto || a.Request.BumpRevision == b.Request.BumpRevision},
		{"--mark-compacted", auto || a.Request.MarkCompacted == b.Request.MarkCompacted},
		{"--clear-alarms", a.Request.ClearAlarms == b.Request.ClearAlarms &&
			a.Request.ClearNoSpace == b.Request.ClearNoSpace},
		{"--allow-localhost", a.Request.AllowLocalhost == b.Request.AllowLocalhost},
		{"--name", a.Name == b.Name},
		{"--data-dir", a.DataDir == b.DataDir},
		{"--wal-dir", a.WALDir == b.WALDir},
		{"--output-dir", a.OutputDir == b.OutputDir},
		{"the places of the plan", reflect.DeepEqual(a.Places, b.Places)},
		{"--initial-advertise-peer-urls", slices.Equal(a.PeerURLs, b.PeerURLs)},
		{"--chown", a.Owner == b.Owner || a.Owner != nil && b.Owner != nil && *a.Owner == *b.Owner},
		{"--replace", a.Replace == b.Replace},
		{"--allow-running", a.AllowRunning == b.AllowRunning},
	} {
		if !d.equal {
			out = append(out, d.what)
		}
	}
	return out
}

// FinishInterrupted completes an earlier restore to the same folders that was killed
// while it put them into place, if it is the restore that is requested now: of the
// same database, with everything asked as it is asked now. It returns nil if there is
// none. It returns an [*InterruptedError] if it is another restore, and a
// [*backup.RefusedError] if a server runs on a target; then nothing was touched.
func FinishInterrupted(ctx context.Context, s Site, r Request, o Origin) (*Summary, error) {
	return finishInterrupted(ctx, s, sameAs(&s, r, o), nil)
}

// FinishAny completes whatever restore to the folders of s was interrupted. It needs
// no source, because everything was built before. Otherwise it is as
// [FinishInterrupted].
func FinishAny(ctx context.Context, s Site) (*Summary, error) {
	return finishInterrupted(ctx, s, func(publish.Work) error { return nil }, nil)
}

// UnmovedError is a restore that was built and of which nothing could be put into place.
type UnmovedError = publish.UnmovedError

// Abort gives up a restore to the folders of s that was interrupted before anything was
// moved, and says what was given up. It returns nil if there is none, and a
// [*backup.RefusedError] if it has begun to move folders.
func Abort(s Site) (*Summary, error) {
	dirs, err := s.Dirs()
	if err != nil {
		return nil, err
	}
	work, err := publish.Abort(dirs, nil)
	if work == nil || err != nil {
		return nil, err
	}
	n, err := readNote(*work)
	return &n.Summary, err
}

// CanAbort reports whether [Abort] would give up a restore.
func CanAbort(s Site) bool {
	dirs, err := s.Dirs()
	if err != nil {
		return false
	}
	untouched, err := publish.Untouched(dirs)
	return untouched && err == nil
}

// CheckInterrupted returns an [*InterruptedError] if a restore to the folders of s
// was interrupted and must be finished. It changes nothing.
func CheckInterrupted(s Site) error {
	dirs, err := s.Dirs()
	if err != nil {
		return err
	}
	work, err := publish.Interrupted(dirs)
	if work == nil || err != nil {
		return err
	}
	return &InterruptedError{Work: *work}
}

// sameAs accepts the interrupted restore that is requested by these arguments.
func sameAs(s *Site, r Request, o Origin) func(publish.Work) error {
	return func(w publish.Work) error {
		n, err := readNote(w)
		if err != nil {
			return err
		}
		if n.Undo != nil {
			return &InterruptedError{Work: w, Differs: []string{"--undo"}}
		}
		now, err := newAsked(s, r, o)
		if err != nil {
			return err
		}
		if differs := n.Asked.differences(now); len(differs) > 0 {
			return &InterruptedError{Work: w, Differs: differs}
		}
		return nil
	}
}

func readNote(w publish.Work) (n note, err error) {
	if err := json.Unmarshal(w.Note, &n); err != nil {
		return n, fmt.Errorf("decode journal of %s: %w", w.Source, err)
	}
	return n, nil
}

func finishInterrupted(ctx context.Context, s Site, accept func(publish.Work) error, before publish.Hook,
) (*Summary, error) {
	dirs, err := s.Dirs()
	if err != nil {
		return nil, err
	}
	stopped := func(dir string, inside bool) error { return checkStopped(ctx, dir, inside) }
	work, err := publish.Finish(dirs, publish.Judge{Accept: accept, Stopped: stopped}, before)
	if work == nil || err != nil {
		return nil, err
	}
	n, err := readNote(*work)
	n.Summary.moved(work.Asides)
	return &n.Summary, err
}

// checkStopped refuses a target on which an etcd was started after the crash.
func checkStopped(ctx context.Context, dir string, inside bool) error {
	if st, err := os.Stat(dir); err == nil && !st.IsDir() {
		return nil // closed by the restore
	}
	return checkUse(ctx, dir, inside)
}
