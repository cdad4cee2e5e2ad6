package snapshot

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/disk"
)

// errSpoolInUse is returned for a spool that another process is at work on, or
// had a moment ago.
var errSpoolInUse = errors.New("the spool is in use")

// claim takes a pending spool for this process alone, and reads its record
// again: another may have been quicker.
func claim(path string) (*spool, error) {
	f, err := disk.OpenRegular(path, os.O_RDWR)
	if errors.Is(err, os.ErrNotExist) {
		return nil, errSpoolInUse
	}
	if err != nil {
		return nil, fmt.Errorf("open pending spool: %w", err)
	}
	sp := &spool{path: path, f: f, end: io.EOF}
	sp.cond = sync.NewCond(&sp.mu)
	if err := sp.takeOver(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return sp, nil
}

func (s *spool) takeOver() error {
	if err := s.lockAlone(); err != nil {
		return err
	}
	info, err := s.f.Stat()
	if err != nil {
		return fmt.Errorf("look at pending spool: %w", err)
	}
	s.n, s.expect = info.Size(), info.Size()
	if err := checkOurs(s.path); err != nil {
		return err
	}
	s.record, err = readRecord(s.path)
	return err
}

// lockAlone locks out everybody else, or returns errSpoolInUse.
func (s *spool) lockAlone() error {
	err := disk.TryLock(s.f, disk.Exclusive)
	if errors.Is(err, disk.ErrInUse) || errors.Is(err, disk.ErrGone) {
		return errSpoolInUse
	}
	return err
}

// drop removes a pending snapshot that nobody is storing, and reports whether it
// did. It is lost, so it is told loudly.
func (t *Taker) drop(p pendingSpool, why string) bool {
	f, err := disk.OpenRegular(p.path, os.O_RDWR)
	if err != nil {
		return false
	}
	sp := &spool{path: p.path, f: f}
	if sp.lockAlone() != nil {
		_ = f.Close()
		return false
	}
	args := []any{"path", p.path, "reason", why}
	if p.record != nil {
		args = append(args, "cluster", p.record.Manifest.Cluster, "started", p.record.Manifest.StartedAt, "revision", int64(p.record.Manifest.Revision))
	}
	if err := sp.remove(); err != nil {
		t.Log.Error("a pending snapshot cannot be dropped", append(args, "err", err)...)
		return false
	}
	t.Log.Error("dropped a pending snapshot", args...)
	return true
}

// tidyPending drops what will never be stored: what is too old, what cannot be
// read, and all but the newest of each cluster.
func (t *Taker) tidyPending() {
	all, err := pendings(t.Spool)
	if err != nil {
		t.Log.Warn("cannot look through the spool folder", "err", err)
		return
	}
	kept := map[[2]string]int{}
	for _, p := range slices.Backward(all) { // the newest first
		switch {
		case errors.Is(p.err, backup.ErrCorrupt):
			t.drop(p, p.err.Error())
		case p.err != nil:
			t.Log.Warn("cannot use a pending spool", "path", p.path, "err", p.err)
		case p.record.expired(time.Now()):
			t.drop(p, fmt.Sprintf("it could not be stored for %d days", int(maxPendingAge.Hours()/24)))
		default:
			of := p.record.owner()
			if kept[of]++; kept[of] > maxPending {
				t.drop(p, fmt.Sprintf("%d newer ones of the cluster are pending", maxPending))
			}
		}
	}
}

// owner is the cluster and the repository of the record.
func (r *pendingRecord) owner() [2]string { return [2]string{r.Manifest.Cluster, r.Repository} }

// SpoolBytes returns how much the spools in a folder take, of all clusters and
// processes. dir is as in [Taker].
func SpoolBytes(dir string) (int64, error) { return spoolBytes(spoolFolder(dir), "") }

// spoolBytes leaves out the spool at the path except.
func spoolBytes(dir, except string) (int64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, fmt.Errorf("look through spool folder: %w", err)
	}
	sum := int64(0)
	for _, e := range entries {
		if !spoolPattern.MatchString(e.Name()) || filepath.Join(dir, e.Name()) == except {
			continue
		}
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() { // else it went a moment ago
			sum += disk.SpaceOf(info)
		}
	}
	return sum, nil
}

// makeSpool makes an empty spool with room for need bytes, for which older
// pending snapshots give way.
func (t *Taker) makeSpool(need int64) (*spool, error) {
	if fs, err := disk.FileSystemOf(t.Spool); err == nil && t.KeepPending {
		if missing := disk.WithReserve(need) - fs.Free; missing > 0 {
			t.giveWay(missing)
		}
	}
	sp, err := newSpool(t.Spool, need)
	if err != nil {
		return nil, err
	}
	if err := t.reserve(sp, need); err != nil {
		return nil, errors.Join(err, sp.remove())
	}
	return sp, nil
}

// reserve keeps the spools within their limit when need bytes are going to be
// received into sp. It sets them aside, so that others who count see them.
func (t *Taker) reserve(sp *spool, need int64) error {
	if t.SpoolLimit <= 0 {
		return nil
	}
	disk.Allocate(sp.f, need)
	others, err := spoolBytes(t.Spool, sp.path)
	if err != nil {
		return err
	}
	excess := others + need - t.SpoolLimit
	if excess <= 0 || t.KeepPending && t.giveWay(excess) {
		return nil
	}
	return backup.WithHint(fmt.Errorf("spool folder %s may hold %d bytes: the database needs %d and %d are taken: %w", t.Spool, t.SpoolLimit, need, others, unix.ENOSPC),
		"raise the limit of the spool, or find out why what lies there is not stored (the log tells)")
}

// giveWay drops pending snapshots, the oldest first, until at least excess bytes
// are free, and reports whether they are. The newest of each cluster stays. When
// all that may go is not enough nothing goes.
func (t *Taker) giveWay(excess int64) bool {
	all, err := pendings(t.Spool)
	if err != nil {
		return false
	}
	newest := map[[2]string]string{}
	all = slices.DeleteFunc(all, func(p pendingSpool) bool { return p.err != nil || disk.InUse(p.path) })
	for _, p := range all {
		newest[p.record.owner()] = p.path
	}
	var victims []pendingSpool
	gain := int64(0)
	for _, p := range all {
		if gain < excess && newest[p.record.owner()] != p.path {
			victims = append(victims, p)
			gain += p.record.Manifest.Plain.Bytes
		}
	}
	if gain < excess {
		return false
	}
	for _, p := range victims {
		if !t.drop(p, "there is no room for it beside a newer one") {
			return false
		}
	}
	return true
}
