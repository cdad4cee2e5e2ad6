package rescue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/etcddb"
	"github.com/etcd-backupd/backupd/internal/rescue/entry"
)

// survivor is one member's data, copied.
type survivor struct {
	copied
	db    string        // path of the database that counts
	facts *etcddb.Facts // of it: before the replay, and then after it
	log   *raftLog
	start position // of the database, before the replay
	done  *replayed
	// origin says whether its log shows what the database has. What is not known is said.
	origin entry.Origin
	empty  bool // its database had no keys yet: all is of the log
}

// read finds out what a survivor has. It changes nothing, not even the copy.
func (c copied) read(ctx context.Context) (*survivor, error) {
	s := &survivor{copied: c, db: filepath.Join(c.snap, database)}
	if err := s.inspect(ctx); err != nil {
		return nil, err
	}
	if err := s.readLog(ctx); err != nil {
		return nil, err
	}
	if err := s.takeSent(ctx); err != nil {
		return nil, err
	}
	return s, s.belongs(ctx)
}

// inspect reads the whole database, in a child: a damaged one must not reach etcd's code.
func (s *survivor) inspect(ctx context.Context) error {
	facts, err := etcddb.Inspect(ctx, s.db)
	if err != nil {
		return s.explain(err)
	}
	if why := etcddb.NewerWarning(facts.StorageVersion, facts.ClusterVersion); why != "" {
		return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf("%s: %s", s.folder.DataDir, why)},
			"rescue it with a backupd that knows that etcd: an older one may apply its log in another way")
	}
	if v := facts.EtcdVersion(); entry.TooOld(v) {
		return &backup.RefusedError{Reason: fmt.Sprintf(
			"%s is of etcd %s: its log can be replayed from 3.5 on", s.folder.DataDir, v)}
	}
	s.facts = facts
	return nil
}

func (s *survivor) readLog(ctx context.Context) error {
	a, err := job{WAL: s.wal, From: s.facts.ConsistentIndex}.run(ctx)
	if err != nil {
		return s.explain(fmt.Errorf("read the WAL: %w", err))
	}
	s.log = a.Log
	s.start = position{s.facts.ConsistentIndex, s.facts.RaftTerm}
	return nil
}

// takeSent takes the database that the leader had sent to this member, if the member has died
// before it began to use it. Its log begins after that one. etcd does the same at its start.
func (s *survivor) takeSent(ctx context.Context) error {
	newest := position{}
	for _, m := range s.log.Marks {
		if m.Index > newest.Index && m.Index <= s.log.Commit {
			newest = m
		}
	}
	if newest.Index <= s.start.Index {
		return nil
	}
	sent := filepath.Join(s.snap, fmt.Sprintf("%016x.%s", newest.Index, sentDatabase))
	if _, err := os.Stat(sent); errors.Is(err, fs.ErrNotExist) {
		return nil // the log may have what is between
	}
	s.db = sent
	if err := s.inspect(ctx); err != nil {
		return err
	}
	return s.readLog(ctx)
}

// explain says whose data an error is about, and that the others may do without it.
func (s *survivor) explain(err error) error {
	err = fmt.Errorf("%s: %w", s.folder.DataDir, s.inOriginal(err))
	if errors.Is(err, backup.ErrCorrupt) {
		return backup.WithHint(err, "leave out --from-data-dir=%s if there is another survivor", s.folder.DataDir)
	}
	return err
}

// inOriginal names the files of an error where people know them: the copies will be gone.
func (s *survivor) inOriginal(err error) error {
	text := strings.NewReplacer(s.snap, s.folder.snap(), s.wal, s.folder.wal()).Replace(err.Error())
	if text == err.Error() {
		return err
	}
	return &originalError{err, text}
}

// originalError is an error under other names of files.
type originalError struct {
	err  error
	text string
}

func (e *originalError) Error() string { return e.text }
func (e *originalError) Unwrap() error { return e.err }

// known is its log with its database.
func (s *survivor) known() known { return known{s.log, s.start} }

// replay brings the copied database up to an entry.
func (s *survivor) replay(ctx context.Context, to uint64) error {
	s.done = &replayed{position: s.start}
	if to <= s.start.Index {
		return nil
	}
	a, err := job{WAL: s.wal, From: s.start.Index, Database: s.db, To: to}.run(ctx)
	if err != nil {
		return s.explain(fmt.Errorf("replay the log: %w", err))
	}
	s.done = a.Replayed
	return s.inspect(ctx)
}

// name is that of the member for people: its name if it is known, else its id.
func (s *survivor) name() string {
	if s.log.Missing {
		return "unknown"
	}
	i := slices.IndexFunc(s.facts.Members, func(m backup.Member) bool { return m.ID == s.log.MemberID })
	if i < 0 {
		return s.log.MemberID.String()
	}
	return cmp.Or(s.facts.Members[i].Name, s.log.MemberID.String())
}

// String names it for people.
func (s *survivor) String() string { return fmt.Sprintf("%s (member %s)", s.folder.DataDir, s.name()) }
