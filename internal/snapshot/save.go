package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/kballard/go-shellquote"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/disk"
	"github.com/etcd-backupd/backupd/internal/spool"
)

// Saved describes the snapshot that [Saver.Save] or [Saver.Stream] has written.
type Saved struct {
	// Version is the storage version the server names, "" before etcd 3.6.
	Version  string
	Endpoint string
	Bytes    int64
}

// Saver writes a snapshot to a plain file, as etcdctl snapshot save does.
type Saver struct {
	Source   *cluster.Cluster
	Progress func(done, total int64)
	// Chosen receives the survey: which member was chosen, and which endpoints were
	// passed over. It may be nil.
	Chosen func(*cluster.Survey)
	// Log reports the members that were lost on the way; nil discards.
	Log *slog.Logger
	// AllowNearQuota is as in [Taker].
	AllowNearQuota bool
}

// Save writes the database of the best member to path. It writes to a temporary
// name beside it, checks it against the trailer of etcd, makes it durable and
// renames it. Only a whole snapshot replaces an existing file; anything else, such
// as /dev/null, is never replaced.
func (s *Saver) Save(ctx context.Context, path string) (Saved, error) {
	switch info, err := os.Stat(path); {
	case err == nil && (!info.Mode().IsRegular() || isStream(path)):
		err = fmt.Errorf("save to %s: it is not a regular file", path)
		if info.IsDir() {
			return Saved{}, err
		}
		return Saved{}, backup.WithHint(err, "save to standard output, whose name is -: backupd snapshot save - > %s",
			shellquote.Join(path))
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return Saved{}, fmt.Errorf("save to %w", err) // the name is too long, for example
	}
	survey, err := s.survey(ctx)
	if err != nil {
		return Saved{}, err
	}
	dir := filepath.Dir(path)
	if err := spool.CheckRoom(dir, survey.DatabaseBytes()); err != nil {
		return Saved{}, err
	}
	s.warnOfRoom(dir, survey.DatabaseBytes())
	f, err := newPart(dir, filepath.Base(path), s.log())
	if err != nil {
		return Saved{}, err
	}
	saved, err := s.saveTo(ctx, survey, f)
	if cerr := f.Close(); err == nil && cerr != nil {
		err = fmt.Errorf("close snapshot: %w", cerr)
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return Saved{}, errors.Join(err, disk.Remove(f.Name()))
	}
	return saved, disk.Sync(dir)
}

// isStream reports whether path is a name of something that a process has open, such as
// /dev/stdout. It may lead to a regular file, but the link itself would be replaced.
func isStream(path string) bool {
	link, _ := os.Readlink(path) // "" for what is no link
	dir, _ := filepath.EvalSymlinks(filepath.Dir(path))
	return strings.HasPrefix(link, "/proc/") || strings.HasPrefix(dir, "/proc/")
}

// warnOfRoom warns if less would stay free than the reserve that a spool keeps by default.
// A command that replaces another one must not refuse what that one did.
func (s *Saver) warnOfRoom(dir string, database int64) {
	fs, err := disk.FileSystemOf(dir)
	reserve := disk.Reserve{}.Of(fs)
	if left := fs.Free - database; err == nil && left < reserve {
		s.log().Warn("the snapshot leaves little space on its file system: an etcd whose disk is full ends",
			"folder", dir, "left", left, "want", reserve)
	}
}

func (s *Saver) log() *slog.Logger {
	if s.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return s.Log
}

func (s *Saver) saveTo(ctx context.Context, survey *cluster.Survey, f *os.File) (Saved, error) {
	got, err := s.receive(ctx, survey, &fileSink{f})
	if err != nil {
		return Saved{}, err
	}
	if err := f.Sync(); err != nil {
		return Saved{}, fmt.Errorf("sync snapshot: %w", err)
	}
	return saved(got), nil
}

// Stream writes the snapshot to w as it is received. After an error the bytes in w
// must not be used: only a nil error says that the trailer was right.
func (s *Saver) Stream(ctx context.Context, w io.Writer) (Saved, error) {
	survey, err := s.survey(ctx)
	if err != nil {
		return Saved{}, err
	}
	got, err := s.receive(ctx, survey, &onceSink{w: w})
	if err != nil {
		return Saved{}, err
	}
	return saved(got), nil
}

func (s *Saver) survey(ctx context.Context) (*cluster.Survey, error) {
	survey, err := s.Source.Survey(ctx)
	if err == nil && s.Chosen != nil {
		s.Chosen(survey)
	}
	return survey, err
}

// receive receives the database of the best member into dst.
func (s *Saver) receive(ctx context.Context, survey *cluster.Survey, dst sink) (got *received, err error) {
	log, report := s.log(), s.Progress
	if report == nil {
		report = func(int64, int64) {}
	}
	quota := newQuotaGuard(survey, s.AllowNearQuota, log)
	err = firstMember(ctx, survey, log, func(c cluster.Candidate) error {
		got, err = stream(ctx, s.Source, quota, c, dst, report)
		return err
	})
	if err == nil {
		warnOfV2(ctx, s.Source, got.member, log)
	}
	return got, err
}

func saved(got *received) Saved {
	return Saved{Version: got.version, Endpoint: got.member.Endpoint, Bytes: got.blob.Bytes}
}

// fileSink empties its file before each try.
type fileSink struct{ *os.File }

func (s *fileSink) begin(_ context.Context, total int64) error {
	if err := spool.CheckRoom(filepath.Dir(s.Name()), total); err != nil {
		return err
	}
	if err := s.Truncate(0); err != nil {
		return err
	}
	_, err := s.Seek(0, io.SeekStart)
	return err
}

func (s *fileSink) end(error) {}

// onceSink cannot take back what it wrote: a second try is possible only if
// nothing was written yet.
type onceSink struct {
	w    io.Writer
	n    int64
	lost error // why the earlier try ended
}

func (s *onceSink) begin(context.Context, int64) error {
	if s.n > 0 {
		return backup.WithHint(fmt.Errorf("lost the member after %d bytes were passed on: %w", s.n, s.lost),
			"delete the output, or save to a file: then another member can be tried")
	}
	return nil
}

func (s *onceSink) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	s.n += int64(n)
	return n, err
}

func (s *onceSink) end(err error) { s.lost = err }
