package spool

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/disk"
)

// begun returns a snapshot that was begun at the time and waits.
func begun(at time.Time) *Pending {
	return &Pending{Repository: "r", Tries: 1, Reason: "no route to host", Capture: backup.Capture{
		Cluster: "prod", StartedAt: at.UTC(), Revision: 7, HighWaterRevision: 7,
		Members:      []backup.Member{{ID: 1, Name: "m1", PeerURLs: []string{"http://10.0.0.1:2380"}}},
		MemberHashes: []backup.MemberHash{}, Plain: backup.Blob{Bytes: 1, SHA256: backup.Digest{1}}, Tool: "test",
	}}
}

// putPending makes a pending spool as a process leaves it.
func putPending(t *testing.T, dir string, p *Pending) string {
	t.Helper()
	p.Path = filepath.Join(dir, "backupd-"+backup.RandomName(12)+spoolSuffix)
	if err := os.WriteFile(p.Path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := p.write(); err != nil {
		t.Fatal(err)
	}
	return p.Path
}

func wantFiles(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, filepath.Join(dir, e.Name()))
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the folder holds %q, want %q", got, want)
	}
}

func TestPending_RoundTrip(t *testing.T) {
	want := begun(time.Now())
	got, err := readPending(putPending(t, t.TempDir(), want))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for name, spoil := range map[string]func(*Pending){
		"NoRepository": func(p *Pending) { p.Repository = "" },
		"NoCapture":    func(p *Pending) { p.Capture = backup.Capture{} },
		"NoMembers":    func(p *Pending) { p.Capture.Members = nil },
		"NoTime":       func(p *Pending) { p.Capture.StartedAt = time.Time{} },
		"NoRevision":   func(p *Pending) { p.Capture.Revision = 0 },
		"NoBytes":      func(p *Pending) { p.Capture.Plain = backup.Blob{} },
		"BadName":      func(p *Pending) { p.Capture.Cluster = "../prod" },
	} {
		p := begun(time.Now())
		p.Path = filepath.Join(t.TempDir(), "backupd-aaaaaaaaaaaa.spool")
		spoil(p)
		if err := p.write(); err == nil {
			t.Errorf("%s: it was written", name)
		}
	}
}

// TestPending_Damaged: no byte of the file beside a spool can change unseen, and
// damage is reported as such.
func TestPending_Damaged(t *testing.T) {
	path := putPending(t, t.TempDir(), begun(time.Now()))
	raw, err := os.ReadFile(pendingPath(path))
	if err != nil {
		t.Fatal(err)
	}
	raw = bytes.TrimSuffix(raw, []byte("\n"))
	want, err := parsePending(raw)
	if err != nil {
		t.Fatal(err)
	}
	for i := range raw {
		changed := bytes.Clone(raw)
		changed[i] ^= 0x20 // the case of a letter, for one
		got, err := parsePending(changed)
		var unknown *unknownFormatError
		if err == nil && !cmp.Equal(got, want) || err != nil && !errors.Is(err, backup.ErrCorrupt) &&
			!errors.As(err, &unknown) {
			t.Errorf("byte %d: got %+v, %v", i, got, err)
		}
		if _, err := parsePending(raw[:i]); !errors.Is(err, backup.ErrCorrupt) {
			t.Errorf("%d bytes: got %v", i, err)
		}
	}
	if _, err := parsePending(make([]byte, maxPendingBytes+1)); !errors.Is(err, backup.ErrCorrupt) {
		t.Errorf("too long: got %v", err)
	}
}

// TestSweep_Pending: which files a sweep leaves in the folder, and which it
// removes.
func TestSweep_Pending(t *testing.T) {
	dir := t.TempDir()
	young := putPending(t, dir, begun(time.Now().Add(-maxAge+time.Hour)))
	old := putPending(t, dir, begun(time.Now().Add(-maxAge-time.Hour))) // only Tidy may drop it
	torn := putPending(t, dir, begun(time.Now()))
	newer, newerOld := putPending(t, dir, begun(time.Now())), putPending(t, dir, begun(time.Now()))
	write := func(path, text string) string {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write(pendingPath(torn), "{")
	for _, path := range []string{newer, newerOld} { // of a newer version
		write(pendingPath(path), `{"format": "backupd/pending/v9"}`)
	}
	past := time.Now().Add(-maxAge - time.Hour)
	if err := os.Chtimes(pendingPath(newerOld), past, past); err != nil {
		t.Fatal(err)
	}
	write(filepath.Join(dir, "backupd-aaaaaaaaaaaa.pending.json"), "without a spool")
	write(filepath.Join(dir, "backupd-bbbbbbbbbbbb.pending.json.tmp"), "without a spool")
	foreign := []string{write(filepath.Join(dir, "backupd-x.pending.json"), ""),
		write(filepath.Join(dir, "backupd-aaaaaaaaaaaa.pending.json.old"), "")}

	// A spool that is held stays, whatever is beside it.
	held := putPending(t, dir, begun(past))
	folder := Folder{Dir: dir}
	sp, err := folder.Claim(Pending{Path: held})
	if err != nil {
		t.Fatal(err)
	}
	if err := folder.sweep(); err != nil {
		t.Fatal(err)
	}
	want := foreign
	for _, path := range []string{young, old, newer, newerOld, held} {
		want = append(want, path, pendingPath(path))
	}
	wantFiles(t, dir, want...)

	// A process that was killed while it wrote leaves the earlier file.
	temp := write(pendingPath(young)+disk.TempSuffix, "half")
	if r, err := readPending(young); err != nil || r.Tries != 1 {
		t.Errorf("got %+v, %v", r, err)
	}
	again := begun(time.Now())
	again.Path = young
	if err := again.write(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(temp); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("temporary file: %v", err)
	}
	if err := sp.Remove(); err != nil {
		t.Error(err)
	}
	if all, err := folder.Waiting(); err != nil || len(all) != 2 || all[1].Path != young {
		t.Errorf("got pending %v, %v", all, err)
	}
}

// TestTidy: each spool that is dropped is logged. Those of other owners stay.
func TestTidy(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	old := putPending(t, dir, begun(now.Add(-maxAge-time.Hour)))
	torn := putPending(t, dir, begun(now))
	if err := os.WriteFile(pendingPath(torn), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	var mine []string
	for i := range maxPending + 2 {
		mine = append(mine, putPending(t, dir, begun(now.Add(time.Duration(i)*time.Second))))
	}
	other := begun(now.Add(-maxAge - 2*time.Hour)) // and an older one
	other.Repository = "another"
	older := *other
	older.Capture.StartedAt = older.Capture.StartedAt.Add(-time.Hour)

	var log strings.Builder
	folder := Folder{Dir: dir, Log: slog.New(slog.NewTextHandler(&log, nil))}
	var want []string
	for _, path := range append(mine[2:], putPending(t, dir, other), putPending(t, dir, &older)) {
		want = append(want, path, pendingPath(path))
	}
	folder.Tidy("prod", "r")
	wantFiles(t, dir, want...)
	for path, reason := range map[string]string{old: "7 days", torn: "decode", mine[0]: "3 newer ones",
		mine[1]: "3 newer ones"} {
		if !slices.ContainsFunc(strings.Split(log.String(), "\n"), func(line string) bool {
			return strings.Contains(line, path) && strings.Contains(line, reason) && strings.Contains(line, "ERROR")
		}) {
			t.Errorf("the log does not say that %s went because of %q:\n%s", path, reason, log.String())
		}
	}
}

// TestTidy_Newest: the newest data of a cluster stays, however old it is, also if the
// clock ran ahead when an earlier one was begun.
func TestTidy_Newest(t *testing.T) {
	put := func(dir string, age time.Duration, index uint64) string {
		p := begun(time.Now().Add(-age))
		p.Capture.RaftIndex = index
		return putPending(t, dir, p)
	}
	dir := t.TempDir()
	put(dir, maxAge+2*time.Hour, 1)
	newest := put(dir, maxAge+time.Hour, 2)
	(&Folder{Dir: dir}).Tidy("prod", "r")
	wantFiles(t, dir, newest, pendingPath(newest))

	dir = t.TempDir()
	newest = put(dir, maxAge+time.Hour, 9)
	want := []string{newest, pendingPath(newest)}
	for i := range maxPending {
		path := put(dir, -time.Duration(i)*time.Hour, uint64(i)) // ahead
		want = append(want, path, pendingPath(path))
	}
	folder := Folder{Dir: dir}
	folder.Tidy("prod", "r")
	wantFiles(t, dir, slices.Clone(want)...) // which it sorts
	if !(room{&folder}).giveWay(1) {
		t.Error("there are some that may go")
	}
	wantFiles(t, dir, slices.Delete(want, 2, 4)...) // the first of them, though the newest seems older
}

// TestClaim: only one process can have a spool, and none can have one that was
// removed.
func TestClaim(t *testing.T) {
	p := begun(time.Now())
	path := putPending(t, t.TempDir(), p)
	var folder Folder
	sp, err := folder.Claim(*p)
	if err != nil {
		t.Fatal(err)
	}
	if sp.Pending().Repository != "r" || sp.Path() != path {
		t.Errorf("got %+v", sp.Pending())
	}
	if raw, err := io.ReadAll(sp.Reader()); err != nil || string(raw) != "x" {
		t.Errorf("read %q, %v", raw, err)
	}
	if _, err := folder.Claim(*p); !errors.Is(err, disk.ErrInUse) {
		t.Errorf("a second time: got %v", err)
	}
	if !disk.InUse(path) {
		t.Error("nobody seems to hold it")
	}
	if folder.drop(entry{path: path}, "test") {
		t.Error("it was dropped while it was held")
	}
	late, err := disk.OpenRegular(path, os.O_RDWR) // before it is removed
	if err != nil {
		t.Fatal(err)
	}
	if err := sp.Remove(); err != nil {
		t.Error(err)
	}
	if err := newFile(path, late).takeOver(); !errors.Is(err, disk.ErrGone) {
		t.Errorf("what is removed: got %v", err)
	}
	if err := late.Close(); err != nil {
		t.Error(err)
	}
	if _, err := folder.Claim(*p); !errors.Is(err, disk.ErrGone) {
		t.Errorf("after it is removed: got %v", err)
	}
}

// TestLimit: the space that others have allocated counts, whether or not it is
// written.
func TestLimit(t *testing.T) {
	dir := t.TempDir()
	folder := Folder{Dir: dir, MinFree: disk.ReserveOf(0), Limit: 10 << 20}
	first, second := makeSpool(t, dir), makeSpool(t, dir)
	if err := (room{&folder}).allot(first, 6<<20); err != nil {
		t.Fatal(err)
	}
	probe, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	disk.Allocate(probe, 1<<20)
	info, err := probe.Stat()
	if err := errors.Join(err, probe.Close()); err != nil {
		t.Fatal(err)
	}
	if disk.SpaceOf(info) == 0 { // a file system that allocates nothing
		if err := first.f.Truncate(6 << 20); err != nil {
			t.Fatal(err)
		}
	}
	if err := (room{&folder}).allot(second, 6<<20); err == nil || !strings.Contains(err.Error(), fmt.Sprint(10<<20)) {
		t.Errorf("got %v", err)
	}
	// The limit applies also to a database that has grown since the reservation.
	if err := folder.Begin(second, 6<<20); err == nil || !strings.Contains(err.Error(), fmt.Sprint(10<<20)) {
		t.Errorf("begun: got %v", err)
	}
	if err := first.reset(0); err != nil {
		t.Fatal(err)
	}
	if err := second.reset(0); err != nil {
		t.Fatal(err)
	}
	if err := (room{&folder}).allot(second, 6<<20); err != nil {
		t.Errorf("after the first was emptied: got %v", err)
	}
}

// TestRemember: the file beside a spool is written before it is needed, and later
// says why the spool is still there.
func TestRemember(t *testing.T) {
	folder := Folder{Dir: t.TempDir(), Keep: true, MinFree: disk.ReserveOf(0)}
	s, err := folder.New(1)
	if err != nil {
		t.Fatal(err)
	}
	c := begun(time.Now()).Capture
	if err := s.Remember("", c); err == nil || s.Pending() != nil {
		t.Errorf("of no repository: got %v, %+v", err, s.Pending())
	}
	if err := s.Remember("r", c); err != nil {
		t.Fatal(err)
	}
	all, err := folder.All()
	waiting, werr := folder.Waiting()
	if err != nil || werr != nil || len(all) != 1 || len(waiting) != 0 ||
		!strings.Contains(all[0].Why(), "ended before") {
		t.Errorf("while it is stored: got %+v, %+v, %v, %v", all, waiting, err, werr)
	}
	left, err := s.Leave(errors.New("no route to host"))
	if err != nil || left.Tries != 1 || left.Why() != "no route to host" {
		t.Errorf("got %+v, %v", left, err)
	}
	if waiting, err := folder.Waiting(); err != nil || len(waiting) != 1 || !cmp.Equal(waiting[0], left) {
		t.Errorf("got %+v, want %+v, %v", waiting, left, err)
	}
	info, err := os.Stat(s.Path())
	if err != nil {
		t.Fatal(err)
	}
	if n, err := folder.Bytes(); err != nil || n != disk.SpaceOf(info) {
		t.Errorf("it takes %d bytes, %v", n, err)
	}
}

// TestGiveWay: the oldest spools make room, and the newest of each owner stays. If
// the others are not enough, none goes.
func TestGiveWay(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	var log strings.Builder
	folder := Folder{
		Dir: dir, Keep: true, MinFree: disk.ReserveOf(0), Limit: 3 << 10, Log: slog.New(slog.NewTextHandler(&log, nil)),
	}
	put := func(cluster string, age time.Duration) string {
		p := begun(now.Add(-age))
		p.Capture.Cluster, p.Capture.Plain.Bytes = cluster, 1<<10
		path := putPending(t, dir, p)
		if err := os.WriteFile(path, make([]byte, 1<<10), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	oldest, second, newest := put("a", 3*time.Hour), put("a", 2*time.Hour), put("a", time.Hour)
	other := put("b", 4*time.Hour)
	if (room{&folder}).giveWay(3 << 10) {
		t.Error("the newest of each went, or it reports what it did not do")
	}
	wantFiles(t, dir, oldest, pendingPath(oldest), second, pendingPath(second), newest, pendingPath(newest), other,
		pendingPath(other))
	if !(room{&folder}).giveWay(1 << 10) {
		t.Error("there is one that may go")
	}
	wantFiles(t, dir, second, pendingPath(second), newest, pendingPath(newest), other, pendingPath(other))
	if !strings.Contains(log.String(), oldest) || !strings.Contains(log.String(), "level=ERROR") {
		t.Errorf("the log does not say what was dropped: %s", log.String())
	}
	folder.Keep = false // nobody asked for it
	if _, err := folder.New(3 << 10); err == nil {
		t.Error("over the limit: no error")
	}
	wantFiles(t, dir, second, pendingPath(second), newest, pendingPath(newest), other, pendingPath(other))
}
