package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
)

// aRecord is a record of a snapshot begun at the time.
func aRecord(started time.Time) *pendingRecord {
	return &pendingRecord{Repository: "r", Tries: 1, Reason: "no route to host", Manifest: &backup.Manifest{
		Format: backup.ManifestFormat, Cluster: "prod", StartedAt: started.UTC(), Revision: 7, HighWaterRevision: 7,
		Members: []backup.Member{{ID: 1, Name: "m1", PeerURLs: []string{"http://10.0.0.1:2380"}}}, MemberHashes: []backup.MemberHash{},
		Plain: backup.Blob{Bytes: 1, SHA256: backup.Digest{1}}, Tool: "test",
	}}
}

// putPending makes a pending spool as a process leaves it.
func putPending(t *testing.T, dir string, r *pendingRecord) string {
	t.Helper()
	path := filepath.Join(dir, "backupd-"+backup.RandomName(12)+spoolSuffix)
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writeRecord(path, r); err != nil {
		t.Fatal(err)
	}
	return path
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

func TestRecord_RoundTrip(t *testing.T) {
	want := aRecord(time.Now())
	got, err := readRecord(putPending(t, t.TempDir(), want))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for name, spoil := range map[string]func(*pendingRecord){
		"NoRepository": func(r *pendingRecord) { r.Repository = "" },
		"NoManifest":   func(r *pendingRecord) { r.Manifest = nil },
		"NoMembers":    func(r *pendingRecord) { r.Manifest.Members = nil },
		"NoTime":       func(r *pendingRecord) { r.Manifest.StartedAt = time.Time{} },
		"BadName":      func(r *pendingRecord) { r.Manifest.Cluster = "../prod" },
	} {
		r := aRecord(time.Now())
		spoil(r)
		if err := writeRecord(filepath.Join(t.TempDir(), "backupd-aaaaaaaaaaaa.spool"), r); err == nil {
			t.Errorf("%s: it was written", name)
		}
	}
}

// TestRecord_Damaged: no byte of a record can change unseen, and one that is
// damaged says so.
func TestRecord_Damaged(t *testing.T) {
	path := putPending(t, t.TempDir(), aRecord(time.Now()))
	raw, err := os.ReadFile(recordPath(path))
	if err != nil {
		t.Fatal(err)
	}
	raw = bytes.TrimSuffix(raw, []byte("\n"))
	want, err := parseRecord(raw)
	if err != nil {
		t.Fatal(err)
	}
	for i := range raw {
		changed := bytes.Clone(raw)
		changed[i] ^= 0x20 // the case of a letter, for one
		got, err := parseRecord(changed)
		var unknown *unknownRecordError
		if err == nil && !cmp.Equal(got, want) || err != nil && !errors.Is(err, backup.ErrCorrupt) && !errors.As(err, &unknown) {
			t.Errorf("byte %d: got %+v, %v", i, got, err)
		}
		if _, err := parseRecord(raw[:i]); !errors.Is(err, backup.ErrCorrupt) {
			t.Errorf("%d bytes: got %v", i, err)
		}
	}
	if _, err := parseRecord(make([]byte, maxPendingBytes+1)); !errors.Is(err, backup.ErrCorrupt) {
		t.Errorf("too long: got %v", err)
	}
}

// TestSweep_Pending: what a sweep leaves in the folder, and what it takes.
func TestSweep_Pending(t *testing.T) {
	dir := t.TempDir()
	young := putPending(t, dir, aRecord(time.Now().Add(-maxPendingAge+time.Hour)))
	putPending(t, dir, aRecord(time.Now().Add(-maxPendingAge-time.Hour)))
	torn := putPending(t, dir, aRecord(time.Now()))
	newer, newerOld := putPending(t, dir, aRecord(time.Now())), putPending(t, dir, aRecord(time.Now()))
	write := func(path, text string) string {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write(recordPath(torn), "{")
	for _, path := range []string{newer, newerOld} { // of a newer version
		write(recordPath(path), `{"format": "backupd/pending/v9"}`)
	}
	past := time.Now().Add(-maxPendingAge - time.Hour)
	if err := os.Chtimes(recordPath(newerOld), past, past); err != nil {
		t.Fatal(err)
	}
	write(filepath.Join(dir, "backupd-aaaaaaaaaaaa.pending.json"), "without a spool")
	write(filepath.Join(dir, "backupd-bbbbbbbbbbbb.pending.json.tmp"), "without a spool")
	foreign := []string{write(filepath.Join(dir, "backupd-x.pending.json"), ""), write(filepath.Join(dir, "backupd-aaaaaaaaaaaa.pending.json.old"), "")}

	// One that is held stays whatever lies beside it.
	held := putPending(t, dir, aRecord(past))
	sp, err := claim(held)
	if err != nil {
		t.Fatal(err)
	}
	if err := sweepSpools(dir); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, dir, append(foreign, young, recordPath(young), newer, recordPath(newer), held, recordPath(held))...)

	// A process that was killed while it wrote leaves the record before.
	temp := write(recordPath(young)+tempSuffix, "half")
	if r, err := readRecord(young); err != nil || r.Tries != 1 {
		t.Errorf("got %+v, %v", r, err)
	}
	if err := writeRecord(young, aRecord(time.Now())); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(temp); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("temporary file: %v", err)
	}
	if err := sp.remove(); err != nil {
		t.Error(err)
	}
	if all, err := Pending(dir); err != nil || len(all) != 1 || all[0].Path != young {
		t.Errorf("got pending %v, %v", all, err)
	}
}

// TestTidyPending: what goes is told in the log.
func TestTidyPending(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	old := putPending(t, dir, aRecord(now.Add(-maxPendingAge-time.Hour)))
	torn := putPending(t, dir, aRecord(now))
	if err := os.WriteFile(recordPath(torn), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	var mine []string
	for i := range maxPending + 2 {
		mine = append(mine, putPending(t, dir, aRecord(now.Add(time.Duration(i)*time.Second))))
	}
	other := aRecord(now)
	other.Repository = "another"
	stays := putPending(t, dir, other)

	var log strings.Builder
	taker := &Taker{Spool: dir, Log: slog.New(slog.NewTextHandler(&log, nil))}
	taker.tidyPending()
	want := []string{stays, recordPath(stays)}
	for _, path := range mine[2:] {
		want = append(want, path, recordPath(path))
	}
	wantFiles(t, dir, want...)
	for path, reason := range map[string]string{old: "7 days", torn: "decode", mine[0]: "3 newer ones", mine[1]: "3 newer ones"} {
		if !slices.ContainsFunc(strings.Split(log.String(), "\n"), func(line string) bool {
			return strings.Contains(line, path) && strings.Contains(line, reason) && strings.Contains(line, "ERROR")
		}) {
			t.Errorf("the log does not tell that %s went because of %q:\n%s", path, reason, log.String())
		}
	}
}

// TestPending_Claim: a spool is one process's, and one that went is nobody's.
func TestPending_Claim(t *testing.T) {
	path := putPending(t, t.TempDir(), aRecord(time.Now()))
	sp, err := claim(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := claim(path); !errors.Is(err, errSpoolInUse) {
		t.Errorf("a second time: got %v", err)
	}
	if !inUse(path) {
		t.Error("nobody seems to hold it")
	}
	taker := &Taker{Log: slog.New(slog.DiscardHandler)}
	if taker.drop(pendingSpool{path: path}, "test") {
		t.Error("it was dropped while it was held")
	}
	late, err := openPlain(path, os.O_RDWR) // before it is removed
	if err != nil {
		t.Fatal(err)
	}
	if err := sp.remove(); err != nil {
		t.Error(err)
	}
	if err := (&spool{path: path, f: late}).lockAlone(); !errors.Is(err, errSpoolInUse) {
		t.Errorf("what is removed: got %v", err)
	}
	if err := late.Close(); err != nil {
		t.Error(err)
	}
	if _, err := claim(path); !errors.Is(err, errSpoolInUse) {
		t.Errorf("after it is removed: got %v", err)
	}
}

// TestReserve: what others have set aside counts, whether or not it is written.
func TestReserve(t *testing.T) {
	dir := t.TempDir()
	taker := &Taker{Spool: dir, SpoolLimit: 10 << 20, Log: slog.New(slog.DiscardHandler)}
	first, second := makeSpool(t, dir), makeSpool(t, dir)
	if err := taker.reserve(first, 6<<20); err != nil {
		t.Fatal(err)
	}
	probe, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	allocate(probe, 1<<20)
	info, err := probe.Stat()
	if err := errors.Join(err, probe.Close()); err != nil {
		t.Fatal(err)
	}
	if spaceOf(info) == 0 { // a file system that sets nothing aside
		if err := first.f.Truncate(6 << 20); err != nil {
			t.Fatal(err)
		}
	}
	if err := taker.reserve(second, 6<<20); err == nil || !strings.Contains(err.Error(), fmt.Sprint(10<<20)) {
		t.Errorf("got %v", err)
	}
	if err := first.reset(); err != nil {
		t.Fatal(err)
	}
	if err := second.reset(); err != nil {
		t.Fatal(err)
	}
	if err := taker.reserve(second, 6<<20); err != nil {
		t.Errorf("after the first was emptied: got %v", err)
	}
}

// TestFindNeighbours: the nearest that can be read, on either side.
func TestFindNeighbours(t *testing.T) {
	s := mem.New()
	second := time.Date(2026, 11, 20, 10, 15, 0, 0, time.UTC)
	add := func(after time.Duration, plain byte) *backup.Manifest {
		m := *aRecord(second.Add(after)).Manifest
		m.ID = backup.NewDataName(m.StartedAt).WithRevision(m.Revision)
		m.Timeline, m.FinishedAt = "t", m.StartedAt
		m.Plain.SHA256[0] = plain
		m.Stored = m.Plain
		raw, err := m.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Create(t.Context(), m.Key(), bytes.NewReader(raw)); err != nil {
			t.Fatal(err)
		}
		return &m
	}
	find := func(after time.Duration) neighbours {
		m := *aRecord(second.Add(after)).Manifest
		n, err := findNeighbours(t.Context(), s, &m)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	want := func(what string, got, want *backup.Manifest) {
		t.Helper()
		if (got == nil) != (want == nil) || got != nil && got.ID != want.ID {
			t.Errorf("%s: got %+v, want %+v", what, got, want)
		}
	}
	n := find(0)
	want("before nothing", n.before, nil)
	want("after nothing", n.after, nil)

	first, near := add(-time.Hour, 1), add(-time.Minute, 1)
	later, last := add(time.Minute, 1), add(time.Hour, 1)
	for _, id := range []string{"20261120T101459Z-r7-aaaaaa", "20261120T101501Z-r7-aaaaaa"} {
		if err := s.Create(t.Context(), "prod/snapshots/"+id+".json", strings.NewReader("nonsense")); err != nil {
			t.Fatal(err)
		}
	}
	n = find(0)
	want("before", n.before, near)
	want("after", n.after, later)
	want("same", n.same, nil)
	n = find(-2 * time.Hour)
	want("before all", n.before, nil)
	want("first", n.after, first)
	n = find(2 * time.Hour)
	want("last", n.before, last)
	want("after all", n.after, nil)

	// Two sidecars in one second took two snapshots, or one took this one.
	add(time.Millisecond, 1)
	add(0, 2)
	want("others of this second", find(0).same, nil)
	own := add(0, 1)
	want("this very one", find(0).same, own)
}
