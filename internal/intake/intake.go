package intake

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/etcddb"
	"github.com/etcd-backupd/backupd/internal/etcddb/trailer"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/spool"
)

// Importer brings files into one cluster's part of a repository, one at a time.
type Importer struct {
	To *repository.Cluster
	// Taker stores what is received. It asks no etcd: its source may be nil.
	Taker *snapshot.Taker
	// SkipHash takes files without the SHA-256 that ends a snapshot of etcd. A wrong one is
	// refused all the same.
	SkipHash bool
	// By names who imports, for the pins.
	By string
}

// File is one file, and when its snapshot was taken.
type File struct {
	Path string
	Taken
}

// Find returns the files in the order in which they are imported, the newest first: so each one has
// neighbours in the history that it can be compared with, and an interrupted import has the
// best. Those of which it is not known when they were taken are in failed, by their paths.
func Find(paths []string, now time.Time) (files []File, failed map[string]error) {
	failed = map[string]error{}
	for _, path := range paths {
		modified, err := modifiedAt(path)
		var taken Taken
		if err == nil {
			taken, err = TakenAt(path, modified, now)
		}
		if err != nil {
			failed[path] = err
			continue
		}
		files = append(files, File{path, taken})
	}
	slices.SortStableFunc(files, func(a, b File) int { return b.At.Compare(a.At) })
	return files, failed
}

// Done is what became of a file.
type Done struct {
	Manifest *backup.Manifest
	// Present reports that these very bytes were stored before, as the snapshot of Manifest.
	Present bool
	Pinned  bool
}

// Import stores one file, and pins it: it counts for no rule of retention, so the next prune would
// remove it. Where the same bytes are stored already nothing is done. Damage wraps
// [backup.ErrCorrupt]; a file of another history is a [*StrangerError], one whose time contradicts
// its history a [*TimeError], and a repository that fails a [*StoreError].
func (i *Importer) Import(ctx context.Context, f File) (Done, error) {
	in, err := open(ctx, f.Path)
	if err != nil {
		return Done{}, err
	}
	folder := i.Taker.Spool
	file, err := folder.New(in.need)
	if err != nil {
		return Done{}, errors.Join(err, in.Close())
	}
	guarded, stop := file.Guard(ctx)
	done, err := i.through(guarded, f, in, file)
	stop()
	if gone := file.GaveWay(); gone != nil && err != nil {
		err = gone // what was found in it says nothing
	}
	return done, errors.Join(about(err, file.Path(), f.Path), in.Close(), file.Remove())
}

// about makes an error about the copy in the spool, which will be gone, one about the file.
func about(err error, spooled, path string) error {
	if err == nil || !strings.Contains(err.Error(), spooled) {
		return err
	}
	return &renamedError{err, strings.ReplaceAll(err.Error(), spooled, path)}
}

// renamedError says something else.
type renamedError struct {
	err  error
	text string
}

func (e *renamedError) Error() string { return e.text }
func (e *renamedError) Unwrap() error { return e.err }

// through takes a file through the spool.
func (i *Importer) through(ctx context.Context, f File, in *packed, file *spool.File) (Done, error) {
	got, err := i.receive(ctx, in, file)
	if err != nil {
		return Done{}, err
	}
	i.report(backup.StageInspect, 0, got.whole.Bytes)
	facts, err := etcddb.Inspect(ctx, file.Path())
	if err != nil {
		return Done{}, err
	}
	i.report(backup.StageInspect, got.whole.Bytes, got.whole.Bytes)
	if err := file.GaveWay(); err != nil {
		return Done{}, err
	}
	if len(facts.Members) == 0 {
		return Done{}, backup.Corruptf("the database lists no members of a cluster: no server of etcd has made it so")
	}
	c := capture(i, f, got, facts)
	if err := c.Validate(); err != nil {
		return Done{}, backup.Corruptf("no snapshot can be made of it: %w", err)
	}
	return i.store(ctx, file, snapshot.Spooled{Capture: c, Sum: got.sum})
}

// store stores what is complete in the spool, if it is not there already.
func (i *Importer) store(ctx context.Context, file *spool.File, s snapshot.Spooled) (Done, error) {
	// What is stored must be stored here, and not where something else is by now.
	if err := i.To.Repository().Check(ctx); err != nil {
		return Done{}, &StoreError{err}
	}
	there, err := i.present(ctx, &s.Capture)
	if err != nil {
		return Done{}, &StoreError{err}
	}
	if there != nil {
		item, err := i.To.Item(ctx, there.ID)
		return Done{Manifest: there, Present: true, Pinned: item.Pinned()}, err
	}
	at, err := i.place(ctx, &s.Capture)
	if err != nil {
		return Done{}, err
	}
	m, err := snapshot.StoreSpooled(ctx, i.Taker, file, s, i.To, at.known, at.Placement)
	if err != nil {
		return Done{}, &StoreError{err}
	}
	done, err := i.pin(ctx, m)
	if err == nil && len(at.known) == 0 {
		if err := i.alone(ctx, m); err != nil {
			return Done{}, err
		}
	}
	return done, err
}

// alone refuses to be silent where another process has begun a history of the cluster at the same
// moment: two of them are a question for every restore.
func (i *Importer) alone(ctx context.Context, m *backup.Manifest) error {
	known, err := repository.ReadTimelines(ctx, i.To)
	if err != nil {
		return &StoreError{err}
	}
	for _, l := range known {
		if l.Name != m.Timeline {
			return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf("it is stored as %s and pinned, but another "+
				"process has begun history %s of cluster %s at the same moment: which one is the present one is not known",
				m.ID, l.Name, m.Cluster)}, "remove it, and import it again when nothing else is stored: "+
				"backupd rm --force-pinned --cluster %s %s", m.Cluster, m.ID)
		}
	}
	return nil
}

// StoreError says that the repository failed. It says nothing of the file.
type StoreError struct{ Err error }

func (e *StoreError) Error() string { return e.Err.Error() }
func (e *StoreError) Unwrap() error { return e.Err }

// received are the sums of a database in the spool.
type received struct {
	sum   backup.Checksum
	whole backup.Blob
	// bare reports that the file had no trailer. It has one now.
	bare bool
}

// receive unpacks a file into the spool and compares the trailer.
func (i *Importer) receive(ctx context.Context, in *packed, file *spool.File) (received, error) {
	var got received
	h := sha256.New()
	w := io.MultiWriter(file, h, &got.sum)
	_, err := io.CopyBuffer(w, struct{ io.Reader }{&reporting{in, i, 0}}, make([]byte, 256<<10))
	if err != nil {
		return got, err
	}
	switch rest := got.sum.Bytes % 512; {
	case rest == trailer.Bytes:
	case !i.SkipHash:
		return got, i.noTrailer(file.Path())
	case rest != 0 || got.sum.Bytes == 0:
		return got, backup.Corruptf("it has %d bytes, and no database has: it lost a part", got.sum.Bytes)
	default:
		// A stored snapshot ends as etcd's do: every reader, etcdutl too, looks for that.
		got.bare = true
		if _, err := w.Write(h.Sum(nil)); err != nil {
			return got, err
		}
	}
	file.Expect(got.sum.Bytes)
	file.Finish(io.EOF)
	// It is read again: the disk of the spool may be bad, and the trailer tells.
	got.whole.Bytes = got.sum.Bytes
	got.whole.SHA256, err = trailer.Sum(ctx, file.Path(), func(n int64) {
		i.report(backup.StageVerify, n, got.sum.Bytes)
	})
	if err == nil && got.whole.SHA256 != backup.Digest(h.Sum(nil)) {
		err = errors.New("the spool gave back other bytes than were written to it: its disk may be bad")
	}
	return got, err
}

// noTrailer says of a file without a SHA-256 whether it has the form of a database. Only then it
// may be imported without.
func (i *Importer) noTrailer(path string) error {
	if _, err := etcddb.ReadFrame(path); err != nil {
		return backup.WithHint(backup.Corruptf("it is no etcd database, or it lost its end: %w", err),
			"copy it again and compare the lengths")
	}
	return backup.WithHint(fmt.Errorf("snapshot missing hash but --skip-hash-check=false: %w", trailer.ErrNone),
		"a snapshot ends in a SHA-256 of 32 bytes; a file copied from a data directory has none and needs "+
			"--skip-hash-check")
}

// reporting reports how much was unpacked.
type reporting struct {
	in   *packed
	of   *Importer
	done int64
}

func (r *reporting) Read(p []byte) (int, error) {
	n, err := r.in.Read(p)
	r.done += int64(n)
	r.of.report(backup.StageReceive, r.done, r.in.need)
	return n, err
}

func (i *Importer) report(s backup.Stage, done, total int64) {
	if i.Taker.Progress != nil {
		i.Taker.Progress(s, done, total)
	}
}

// capture is what the file tells of the snapshot. Nobody else is asked.
func capture(i *Importer, f File, got received, facts *etcddb.Facts) backup.Capture {
	name := printable(filepath.Base(f.Path))
	c := backup.Capture{
		Cluster: i.To.Name(), StartedAt: f.At, Members: facts.Members, EtcdVersion: facts.EtcdVersion(),
		StorageVersion: facts.StorageVersion, Revision: facts.Revision, CompactRevision: facts.CompactRevision,
		HighWaterRevision: facts.Revision, HighWaterIndex: facts.ConsistentIndex, HighWaterTerm: facts.RaftTerm,
		SourceIndex: facts.ConsistentIndex, SourceTerm: facts.RaftTerm, HashKV: facts.HashKV, LiveHash: &facts.LiveHash,
		Sketch: facts.Sketch, MemberHashes: []backup.MemberHash{}, Kubernetes: facts.Kubernetes, Keys: facts.Keys(),
		Leases: facts.Leases, Alarms: facts.Alarms, AuthEnabled: facts.AuthEnabled, AuthRevision: facts.AuthRevision,
		Cautions: facts.Cautions, RaftTerm: facts.RaftTerm, RaftIndex: facts.ConsistentIndex, Plain: got.whole,
		Tool: i.Taker.Tool, Imported: &backup.Imported{File: name, TimeFrom: f.From},
		Suspect: slices.Clone(facts.Doubts),
		Unconfirmed: []string{fmt.Sprintf(
			"it was imported from the file %s: nobody compared it with the cluster when it was taken", name)},
	}
	for _, id := range backup.CorruptMembers(facts.Alarms) {
		c.Suspect = append(c.Suspect, fmt.Sprintf("the database holds a CORRUPT alarm for member %s", id))
	}
	if got.bare {
		c.Unconfirmed = append(c.Unconfirmed, "the file had no SHA-256 of etcd: nobody knows whether its bytes are "+
			"those that the member had, or whether its write-ahead log held more")
	}
	return c
}

// printable is the name of a file as one line of at most 200 characters.
func printable(name string) string {
	out := []rune(name)
	for n, r := range out {
		if !unicode.IsPrint(r) {
			out[n] = '?'
		}
	}
	return string(out[:min(len(out), 200)])
}

// present returns the manifest of a snapshot of the very same bytes that is stored and not known
// to be damaged, or nil.
func (i *Importer) present(ctx context.Context, c *backup.Capture) (*backup.Manifest, error) {
	for item, err := range i.To.Items(ctx) {
		if err != nil {
			return nil, err
		}
		same := item.ID.Revision() == c.Revision && item.Index == c.RaftIndex
		if !item.Exists || !same || item.State() == backup.Damaged {
			continue
		}
		found, err := repository.FirstReadable(ctx, i.To, []repository.Item{item})
		if err != nil {
			return nil, err
		}
		if found != nil && found.Plain == c.Plain {
			return found, nil
		}
	}
	return nil, nil
}

// pin keeps an imported snapshot from retention.
func (i *Importer) pin(ctx context.Context, m *backup.Manifest) (Done, error) {
	done := Done{Manifest: m}
	item, err := i.To.Item(ctx, m.ID)
	if err == nil {
		err = i.To.Marks().Pin(ctx, item, "imported from the file "+m.Imported.File, i.By)
	}
	if err != nil {
		return done, &StoreError{backup.WithHint(fmt.Errorf("it is stored as %s, but not pinned: %w", m.ID, err),
			"the next prune may remove it: pin it with backupd pin %s", m.ID)}
	}
	done.Pinned = true
	return done, nil
}
