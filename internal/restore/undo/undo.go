// Package undo puts the data back that a restore has moved aside, by the same journal of
// renames: the restored data is moved aside then. It deletes nothing.
package undo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/publish"
	"github.com/etcd-backupd/backupd/internal/restore"
	"github.com/etcd-backupd/backupd/internal/restore/inuse"
)

// Request says what is put back.
type Request struct {
	// Site is where the restore went: its DataDir and WALDir, or its OutputDir.
	Site restore.Site
	// Old is the time in the names of the folders that are put back, or the path of one.
	// It may be empty if there is one time only.
	Old string
}

func (r *Request) stamp() string {
	if _, after, is := strings.Cut(r.Old, publish.AsidePrefix); is {
		return strings.TrimRight(after, string(filepath.Separator))
	}
	return r.Old
}

// Done says what was put back.
type Done struct {
	// Time is that in the names of the folders that had the old data.
	Time    string   `json:"movedAt"`
	Targets []Target `json:"targets"`
	Notes   []string `json:"notes"`
}

// Target is one data directory.
type Target struct {
	DataDir string `json:"dataDir"`
	WALDir  string `json:"walDir,omitempty"`
	// PutBack are the folders that had the old data.
	PutBack []string `json:"putBack"`
	// RestoredData is where the restored data is, once it was moved.
	RestoredData []string `json:"restoredData,omitempty"`
}

// AmbiguousError is old data of several restores. It is a refusal.
type AmbiguousError struct {
	// Olds are the newest first.
	Olds []publish.Old
}

// Error names all of them.
func (e *AmbiguousError) Error() string { return e.refusal().Error() }

// Unwrap makes it a refusal.
func (e *AmbiguousError) Unwrap() error { return e.refusal() }

func (e *AmbiguousError) refusal() *backup.RefusedError {
	var all []string
	for _, old := range e.Olds {
		all = append(all, strings.Join(folders(old), " with "))
	}
	return &backup.RefusedError{Reason: "there is old data of several restores, and each can be meant: " +
		strings.Join(all, "; ")}
}

// folders lists the folders of old data in the order of their names.
func folders(old publish.Old) []string {
	var out []string
	for _, at := range old.At {
		out = append(out, at)
	}
	slices.Sort(out)
	return out
}

// note is what the journal of an undo has about it, in the form that a restore's has.
type note struct {
	Summary restore.Summary `json:"summary"`
	Undo    *Done           `json:"undo"`
}

// Work is an undo that [Check] has accepted.
type Work struct {
	Done   Done
	groups []publish.Group
}

// Check checks whether the request can be done. It changes nothing. The error is
// [fs.ErrNotExist] if there is no old data, an [*AmbiguousError] if there is some of
// several restores, and a [*backup.RefusedError] where data would be put at risk.
func Check(ctx context.Context, r Request) (*Work, error) {
	dirs, err := dirsOf(r.Site)
	if err != nil {
		return nil, err
	}
	if work, err := publish.Interrupted(dirs); err != nil {
		return nil, err
	} else if work != nil {
		return nil, &restore.InterruptedError{Work: *work}
	}
	old, err := r.choose(dirs)
	if err != nil {
		return nil, err
	}
	var names []string // of members in an output directory
	for dir := range old.At {
		names = append(names, filepath.Base(dir))
	}
	slices.Sort(names)
	w := &Work{Done: Done{Time: old.Stamp, Notes: []string{}}}
	if w.groups, err = r.Site.Groups(names); err != nil {
		return nil, err
	}
	for _, g := range w.groups {
		if err := w.take(ctx, r, g, old); err != nil {
			return nil, err
		}
	}
	w.noteOthers(r.Site, dirs, old)
	return w, nil
}

// AbsentError says that there is nothing to put back, or to go on with. It is an [fs.ErrNotExist].
type AbsentError struct{ Text string }

// Error says what there is not.
func (e *AbsentError) Error() string { return e.Text }

// Unwrap returns [fs.ErrNotExist].
func (e *AbsentError) Unwrap() error { return fs.ErrNotExist }

// choose returns the old data that is meant.
func (r *Request) choose(dirs []string) (publish.Old, error) {
	olds, err := publish.Olds(dirs)
	if err != nil {
		return publish.Old{}, err
	}
	where := r.Site.DataDir + r.Site.OutputDir
	if r.Old == "" {
		switch len(olds) {
		case 0:
			return publish.Old{}, &AbsentError{fmt.Sprintf("no restore has moved data of %s aside", where)}
		case 1:
			return olds[0], nil
		}
		return publish.Old{}, &AmbiguousError{olds}
	}
	i := slices.IndexFunc(olds, func(o publish.Old) bool { return o.Stamp == r.stamp() })
	if i < 0 {
		return publish.Old{}, &AbsentError{fmt.Sprintf("no old data of %s has the time %s", where, r.stamp())}
	}
	return olds[i], nil
}

// take makes the folders of one member part of the work, if that is safe.
func (w *Work) take(ctx context.Context, r Request, g publish.Group, old publish.Old) error {
	t := Target{DataDir: g[0].Dir, PutBack: []string{}}
	if len(g) > 1 {
		t.WALDir = g[1].Dir
	}
	for _, f := range g {
		at := old.At[f.Dir]
		if err := f.Undo(at); err != nil {
			return err
		}
		if f.Nested != "" {
			return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
				"%s is a mount point in %s, which would have to be moved", f.Nested, f.Dir)},
				"unmount it; a data directory or a WAL directory may be a mount point itself")
		}
		if at != "" {
			t.PutBack = append(t.PutBack, at)
		}
	}
	w.Done.Targets = append(w.Done.Targets, t)
	if err := w.strays(r.Site, g); err != nil {
		return err
	}
	if err := checkWhole(r.Site, g, old); err != nil {
		return err
	}
	return stopped(ctx, g)
}

// stopped refuses folders that are used by something that an undo must not disturb.
func stopped(ctx context.Context, g publish.Group) error {
	for _, f := range g {
		if err := unused(ctx, f.Dir, f.Inside); err != nil {
			return err
		}
		if at := f.Tree(); at != "" { // a server may have been started there, to look at it
			if err := unused(ctx, at, false); err != nil {
				return err
			}
		}
	}
	return nil
}

func unused(ctx context.Context, dir string, inside bool) error {
	if st, err := os.Lstat(dir); err == nil && !st.IsDir() {
		return nil // closed by an undo
	}
	if err := inuse.Above(dir); err != nil {
		return err
	}
	return inuse.Below(ctx, dir, func(name string) bool { return inside && publish.IsOurs(name) })
}

// noteOthers names the members whose folders stay as they are.
func (w *Work) noteOthers(site restore.Site, dirs []string, old publish.Old) {
	if site.OutputDir == "" {
		return
	}
	for _, dir := range dirs {
		_, member := os.Stat(filepath.Join(dir, "member"))
		if old.At[dir] == "" && member == nil && !strings.Contains(filepath.Base(dir), ".backupd-") {
			w.Done.Notes = append(w.Done.Notes, fmt.Sprintf("%s has no old data of that time, and stays as it is", dir))
		}
	}
}

// Try finds out whether the folders could be moved. It leaves everything as it is.
func (w *Work) Try() error {
	for _, f := range slices.Concat(w.groups...) {
		if err := f.Try(nil); err != nil {
			return err
		}
	}
	return nil
}

// Execute puts the old data back. If it is killed, [Finish] makes the rest.
func (w *Work) Execute(ctx context.Context) (*Done, error) { return w.execute(ctx, nil) }

func (w *Work) execute(ctx context.Context, before publish.Hook) (_ *Done, err error) {
	shop, err := publish.Begin(w.groups, before)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, shop.Close()) }()
	for _, g := range w.groups {
		for _, f := range g {
			if changed, err := f.Changed(); err != nil {
				return nil, err
			} else if changed {
				return nil, &backup.RefusedError{Reason: f.Dir + " has changed since this undo began"}
			}
		}
		if err := stopped(ctx, g); err != nil {
			return nil, err
		}
	}
	source := "old data of " + w.Done.Time
	n := note{restore.Summary{Source: source, Members: []backup.Member{}, Notes: []string{}}, &w.Done}
	for _, t := range w.Done.Targets {
		n.Summary.Targets = append(n.Summary.Targets, restore.SummaryTarget{DataDir: t.DataDir, WALDir: t.WALDir})
	}
	if err := shop.Publish(source, n); err != nil {
		return nil, err
	}
	w.Done.moved(shop.Asides())
	return &w.Done, nil
}

// moved says where the restored data went.
func (d *Done) moved(asides map[string]string) {
	for i, t := range d.Targets {
		for _, dir := range []string{t.DataDir, t.WALDir} {
			if aside := asides[dir]; aside != "" {
				d.Targets[i].RestoredData = append(d.Targets[i].RestoredData, aside)
			}
		}
	}
}

// Finish completes an undo of this site that was killed. It returns nil if there is none,
// and a [*restore.InterruptedError] if a restore was interrupted there, or an undo of
// other data than the request names.
func Finish(ctx context.Context, r Request) (*Done, error) { return finish(ctx, r, nil) }

func finish(ctx context.Context, r Request, before publish.Hook) (*Done, error) {
	dirs, err := dirsOf(r.Site)
	if err != nil {
		return nil, err
	}
	accept := func(w publish.Work) error {
		d, err := read(w)
		if err != nil {
			return err
		}
		if d == nil || r.Old != "" && r.stamp() != d.Time {
			return &restore.InterruptedError{Work: w}
		}
		return nil
	}
	free := func(dir string, inside bool) error { return unused(ctx, dir, inside) }
	work, err := publish.Finish(dirs, publish.Judge{Accept: accept, Stopped: free}, before)
	if work == nil || err != nil {
		return nil, err
	}
	d, err := read(*work)
	if err == nil {
		d.moved(work.Asides)
	}
	return d, err
}

// Interrupted reports whether an undo of this site was killed, and [Finish] would complete
// it. It changes nothing.
func Interrupted(site restore.Site) (bool, error) {
	dirs, err := dirsOf(site)
	if err != nil {
		return false, err
	}
	work, err := publish.Interrupted(dirs)
	if work == nil || err != nil {
		return false, err
	}
	d, err := read(*work)
	return d != nil, err
}

// read returns what the journal says of an undo, or nil if it is that of a restore.
func read(w publish.Work) (*Done, error) {
	var n note
	if err := json.Unmarshal(w.Note, &n); err != nil {
		return nil, fmt.Errorf("decode journal of %s: %w", w.Source, err)
	}
	return n.Undo, nil
}

// dirsOf lists the folders of the site.
func dirsOf(site restore.Site) ([]string, error) {
	if site.OutputDir == "" {
		return site.Dirs()
	}
	var out []string
	found, err := site.Dirs()
	for _, dir := range found { // only the old data of a member may be left
		name, _, _ := strings.Cut(filepath.Base(dir), publish.AsidePrefix)
		if dir = filepath.Join(filepath.Dir(dir), name); !slices.Contains(out, dir) {
			out = append(out, dir)
		}
	}
	return out, err
}
