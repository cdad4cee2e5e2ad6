package restore

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/publish"
)

// Finished describes an interrupted restore that was completed.
type Finished struct {
	Source    string
	Token     string
	ClusterID backup.MemberID
	Dirs      []string
	// SameRequest reports whether the interrupted restore had the same targets,
	// members and changes as the one that is requested now. The caller must
	// compare the source.
	SameRequest bool
}

// note is what the journal of a restore has about it.
type note struct {
	Token     string          `json:"token"`
	ClusterID backup.MemberID `json:"clusterID"`
	Asked     asked           `json:"asked"`
}

// asked is the part of a site and a request that determines the result of the
// restore and its place.
type asked struct {
	Request
	Name      string   `json:"name,omitempty"`
	DataDir   string   `json:"dataDir,omitempty"`
	WALDir    string   `json:"walDir,omitempty"`
	OutputDir string   `json:"outputDir,omitempty"`
	PeerURLs  []string `json:"peerURLs,omitempty"`
}

func newAsked(s *Site, r Request) asked {
	a := asked{r, s.Name, s.DataDir, s.WALDir, s.OutputDir, s.PeerURLs}
	for _, dir := range []*string{&a.DataDir, &a.WALDir, &a.OutputDir} {
		if abs, err := filepath.Abs(*dir); err == nil && *dir != "" {
			*dir = abs
		}
	}
	return a
}

func (a asked) equal(b asked) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

// FinishInterrupted completes an earlier restore to the same folders that was
// killed while it put them into place. It returns nil if there is none. It returns
// a [*backup.RefusedError] if a server runs on a target.
//
// The caller must compare the result with its own request: the interrupted restore
// may have been a different one.
func FinishInterrupted(s Site, r Request) (*Finished, error) {
	return finishInterrupted(s, r, nil)
}

func finishInterrupted(s Site, r Request, before publish.Hook) (*Finished, error) {
	dirs, err := s.dirs()
	if err != nil {
		return nil, err
	}
	work, err := publish.Finish(dirs, checkStopped, before)
	if work == nil || err != nil {
		return nil, err
	}
	var n note
	if err := json.Unmarshal(work.Note, &n); err != nil {
		return nil, fmt.Errorf("decode journal of %s: %w", work.Source, err)
	}
	return &Finished{work.Source, n.Token, n.ClusterID, work.Dirs, n.Asked.equal(newAsked(&s, r))}, nil
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
