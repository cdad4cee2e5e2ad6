package restore

import (
	"encoding/json"
	"fmt"
	"os"
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
	PeerURLs  []string      `json:"peerURLs,omitempty"`
	Owner     *Owner        `json:"owner,omitempty"`

	Replace      bool `json:"replace,omitempty"`
	AllowRunning bool `json:"allowRunning,omitempty"`
}

func newAsked(s *Site, r Request, o Origin) (asked, error) {
	a := asked{
		Bytes: o.Bytes, SHA256: o.SHA256, Request: r,
		Name: s.Name, WALDir: s.WALDir, OutputDir: s.OutputDir, PeerURLs: s.PeerURLs,
		Owner: s.Owner, Replace: s.Replace, AllowRunning: s.AllowRunning,
	}
	if s.OutputDir == "" {
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
	for _, d := range []struct {
		what  string
		equal bool
	}{
		{"the snapshot", a.Bytes == b.Bytes && a.SHA256 == b.SHA256},
		{"--initial-cluster", a.Request.InitialCluster == b.Request.InitialCluster},
		{"--initial-cluster-token", a.Request.Token == b.Request.Token},
		{"--bump-revision", a.Request.BumpRevision == b.Request.BumpRevision},
		{"--mark-compacted", a.Request.MarkCompacted == b.Request.MarkCompacted},
		{"--clear-alarms", a.Request.ClearAlarms == b.Request.ClearAlarms},
		{"--name", a.Name == b.Name},
		{"--data-dir", a.DataDir == b.DataDir},
		{"--wal-dir", a.WALDir == b.WALDir},
		{"--output-dir", a.OutputDir == b.OutputDir},
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
func FinishInterrupted(s Site, r Request, o Origin) (*Summary, error) {
	return finishInterrupted(s, sameAs(&s, r, o), nil)
}

// FinishAny completes whatever restore to the folders of s was interrupted. It needs
// no source, because everything was built before. Otherwise it is as
// [FinishInterrupted].
func FinishAny(s Site) (*Summary, error) {
	return finishInterrupted(s, func(publish.Work) error { return nil }, nil)
}

// CheckInterrupted returns an [*InterruptedError] if a restore to the folders of s
// was interrupted and must be finished. It changes nothing.
func CheckInterrupted(s Site) error {
	dirs, err := s.dirs()
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

func finishInterrupted(s Site, accept func(publish.Work) error, before publish.Hook) (*Summary, error) {
	dirs, err := s.dirs()
	if err != nil {
		return nil, err
	}
	work, err := publish.Finish(dirs, publish.Judge{Accept: accept, Stopped: checkStopped}, before)
	if work == nil || err != nil {
		return nil, err
	}
	n, err := readNote(*work)
	return &n.Summary, err
}

// checkStopped refuses a target on which an etcd was started after the crash.
func checkStopped(dir string) error {
	if st, err := os.Stat(dir); err == nil && !st.IsDir() {
		return nil // closed by the restore
	}
	for _, p := range []place{{kind: dataFolder, dir: dir, wal: usualWAL}, {kind: walFolder, dir: dir, wal: "."}} {
		f, err := newFolder(p, nil)
		if err != nil {
			return err
		}
		if err := f.checkLocks(); err != nil {
			return err
		}
	}
	return nil
}
