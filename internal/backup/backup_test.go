package backup_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
)

func TestMemberID_Text(t *testing.T) {
	for _, c := range []struct {
		id   backup.MemberID
		text string
	}{{0, "0"}, {0xab, "ab"}, {0x8e9e05c52164694d, "8e9e05c52164694d"}, {1<<64 - 1, "ffffffffffffffff"}} {
		raw, err := json.Marshal(c.id)
		if err != nil || string(raw) != `"`+c.text+`"` {
			t.Errorf("%d: got %s, %v", uint64(c.id), raw, err)
		}
		var back backup.MemberID
		if err := json.Unmarshal(raw, &back); err != nil || back != c.id {
			t.Errorf("%s: got %v, %v", raw, back, err)
		}
	}
	for _, bad := range []string{"", "xyz", "-1", "10000000000000000", " 1"} {
		var id backup.MemberID
		if err := id.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q: got %v", bad, id)
		}
	}
}

func TestDigest_Text(t *testing.T) {
	d := backup.Digest{1, 2, 31: 0xff}
	text, err := d.MarshalText()
	if err != nil || len(text) != 64 || string(text) != d.String() || d.IsZero() || !(backup.Digest{}).IsZero() {
		t.Errorf("got %s, %v", text, err)
	}
	var back backup.Digest
	if err := back.UnmarshalText(text); err != nil || back != d {
		t.Errorf("got %v, %v", back, err)
	}
	for _, bad := range []string{"", "00", strings.Repeat("0", 63), strings.Repeat("0", 66), strings.Repeat("g", 64)} {
		if err := back.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestSnapshotID(t *testing.T) {
	at := time.Date(2026, 11, 20, 10, 15, 0, 999, time.FixedZone("", 3600))
	name := backup.NewDataName(at)
	if got, err := backup.ParseDataName(string(name)); err != nil || got != name ||
		!strings.HasPrefix(string(name), "20261120T091500Z-") {
		t.Errorf("got %s, %v", name, err)
	}
	id := name.WithRevision(123456)
	if got, err := backup.ParseSnapshotID(string(id)); err != nil || got != id {
		t.Errorf("got %v, %v", got, err)
	}
	if id.DataName() != name || id.Revision() != 123456 || !id.Time().Equal(at.Truncate(time.Second)) ||
		!name.Time().Equal(id.Time()) {
		t.Errorf("got %s, %d, %v", id.DataName(), id.Revision(), id.Time())
	}
	if a, b := backup.NewDataName(at), backup.NewDataName(at); a == b {
		t.Errorf("two names of one second are equal: %s", a)
	}
	// Ids sort by time as text.
	later := backup.NewDataName(at.Add(time.Second)).WithRevision(1)
	if ids := []backup.SnapshotID{later, id}; slices.Max(ids) != later {
		t.Errorf("%s sorts before %s", later, id)
	}
}

// TestNewDataName_OneSecond: snapshots of one second and one revision are in the order in which
// they were begun.
func TestNewDataName_OneSecond(t *testing.T) {
	at := time.Date(2026, 11, 20, 10, 15, 0, 0, time.UTC)
	before := backup.NewDataName(at).WithRevision(7)
	for at = at.Add(time.Millisecond); at.Second() == 0; at = at.Add(time.Millisecond) {
		id := backup.NewDataName(at).WithRevision(7)
		if backup.CompareIDs(before, id) >= 0 {
			t.Fatalf("%s of %s is not after %s", id, at, before)
		}
		before = id
	}
	last := backup.NewDataName(at.Add(-1))
	if _, err := backup.ParseDataName(string(last)); err != nil {
		t.Error(err)
	}
}

func TestSnapshotID_Malformed(t *testing.T) {
	for _, bad := range []string{
		"", "latest", "20261120T101500Z-k7q2xd", "20261120T101500Z-r-k7q2xd", "20261120T101500Z-r01-k7q2xd",
		"20261120T101500Z-r-1-k7q2xd",
		"20261320T101500Z-r1-k7q2xd", "20261120T250000Z-r1-k7q2xd", "20261120T101500Z-r1-k7q2x",
		"20261120T101500Z-r1-K7Q2XD", "20261120T101500Z-r1-k7q2x1",
		"20261120T101500Z-r9999999999999999999-k7q2xd", "20261120T101500Z-r9223372036854775808-k7q2xd",
		"20261120T101500Z-r1-k7q2xd\n", "../20261120T101500Z-r1-k7q2xd",
	} {
		if id, err := backup.ParseSnapshotID(bad); err == nil || id != "" {
			t.Errorf("%q: got %v", bad, id)
		}
	}
	for _, bad := range []string{"", "20261120T101500Z-r1-k7q2xd", "20260230T101500Z-k7q2xd", "20261120T101500Z-",
		"20261120T101500Z-k7q2xd.db"} {
		if name, err := backup.ParseDataName(bad); err == nil || name != "" {
			t.Errorf("%q: got %v", bad, name)
		}
	}
	// A malformed name yields nothing rather than something wrong.
	if id := backup.SnapshotID("x"); id.Revision() != 0 || !id.Time().IsZero() || id.DataName() != "" ||
		backup.DataName("x").WithRevision(1) != "" {
		t.Error("a malformed id tells something")
	}
}

func TestParseKey(t *testing.T) {
	for _, s := range []string{
		"prod/snapshots/20261120T101500Z-r1-k7q2xd.t3-a2cde7.0.json",
		"prod/snapshots/20261120T101500Z-r1-k7q2xd.t3-a2cde7.18446744073709551615.suspect.json",
		"prod/snapshots/20261120T101500Z-r1-k7q2xd.t17-a2cde7.4711.unconfirmed.json",
		"prod/marks/20261120T101500Z-r1-k7q2xd.pin.json", "prod/marks/20261120T101500Z-r1-k7q2xd.damaged.json",
		"prod/marks/20261120T101500Z-r1-k7q2xd.verified.20261129T033012Z.json",
		"prod/marks/20261120T101500Z-r1-k7q2xd.read-back.20261129T033012Z.json",
		"a.b_c-D9/data/20261120T101500Z-k7q2xd.db", "prod/data/20261120T101500Z-k7q2xd.db.zst",
		"prod/data/20261120T101500Z-k7q2xd.db.age", "prod/data/20261120T101500Z-k7q2xd.db.zst.age",
		"prod/data/20261120T101500Z-k7q2xd.files.tar", "prod/data/20261120T101500Z-k7q2xd.files.tar.zst.age",
	} {
		if k, err := backup.ParseKey(s); err != nil || k.String() != s {
			t.Errorf("%s: got %+v, %v", s, k, err)
		}
	}
	for _, bad := range []string{
		"", "backupd.json", "prod", "prod/snapshots", "prod/snapshots/", "prod/snapshots/x.json",
		"prod/snapshots/20261120T101500Z-r1-k7q2xd",
		"prod/snapshots/20261120T101500Z-r1-k7q2xd.t3-a2cde7.0.json/x",
		"/snapshots/20261120T101500Z-r1-k7q2xd.t3-a2cde7.0.json",
		"../snapshots/20261120T101500Z-r1-k7q2xd.t3-a2cde7.0.json",
		".hidden/snapshots/20261120T101500Z-r1-k7q2xd.t3-a2cde7.0.json", "prod/data/20261120T101500Z-k7q2xd",
		"prod/data/20261120T101500Z-k7q2xd.db.gz",
		"prod/data/20261120T101500Z-k7q2xd.db.age.zst", "prod/data/20261120T101500Z-r1-k7q2xd.db",
		"prod/other/20261120T101500Z-r1-k7q2xd.json",
		"backupd.json/snapshots/20261120T101500Z-r1-k7q2xd.t3-a2cde7.0.json", "a b/data/20261120T101500Z-k7q2xd.db",
		"prod/snapshots/20261120T101500Z-r1-k7q2xd.t3-a2cde7.0.suspect.suspect.json",
		"prod/snapshots/20261120T101500Z-r1-k7q2xd.t3-a2cde7.0.suspect",
		"prod/snapshots/20261120T101500Z-r1-k7q2xd.t3-a2cde7.0.Suspect.json",
		"prod/snapshots/20261120T101500Z-r1-k7q2xd.json",
		"prod/snapshots/20261120T101500Z-r1-k7q2xd.t3-a2cde7.json", "prod/snapshots/20261120T101500Z-r1-k7q2xd.5.json",
		"prod/snapshots/20261120T101500Z-r1-k7q2xd.t3-a2cde7.05.json",
		"prod/snapshots/20261120T101500Z-r1-k7q2xd.t3-a2cde7.18446744073709551616.json",
		"prod/snapshots/20261120T101500Z-r1-k7q2xd.t3-a2cde7.-1.json",
		"prod/snapshots/20261120T101500Z-r1-k7q2xd.t3-a2cde7.5.verified.json",
		"prod/snapshots/20261120T101500Z-r1-k7q2xd.t0-a2cde7.5.json",
		"prod/snapshots/20261120T101500Z-r1-k7q2xd.t03-a2cde7.5.json",
		"prod/snapshots/20261120T101500Z-r1-k7q2xd.suspect.json",
		"prod/snapshots/20261120T101500Z-r1-k7q2xd.t3-a2cde1.0.json",
		"prod/snapshots/20261120T101500Z-r1-k7q2xd.t3-a2cde.0.json",
		"prod/snapshots/20261120T101500Z-r1-k7q2xd.t3-a2cde7.0.x.json", "prod/marks/20261120T101500Z-r1-k7q2xd.Pin.json",
		"prod/marks/20261120T101500Z-r1-k7q2xd.json",
		"prod/marks/20261120T101500Z-r1-k7q2xd.verified.json",
		"prod/marks/20261120T101500Z-r1-k7q2xd.pin.20261129T033012Z.json",
		"prod/marks/20261120T101500Z-r1-k7q2xd.verified.20261329T033012Z.json",
		"prod/marks/20261120T101500Z-r1-k7q2xd.verified.20261129T033012.5Z.json",
		"prod/marks/20261120T101500Z-r1-k7q2xd.verified..json",
		"prod/marks/20261120T101500Z-r1-k7q2xd.pin", "prod/marks/20261120T101500Z-k7q2xd.pin.json",
		"prod/data/20261120T101500Z-k7q2xd.suspect.db", "prod/data/20261120T101500Z-k7q2xd.files",
		"prod/data/20261120T101500Z-k7q2xd.files.tar.gz", "prod/data/20261120T101500Z-k7q2xd.db.files.tar",
	} {
		if k, err := backup.ParseKey(bad); err == nil {
			t.Errorf("%q: got %+v", bad, k)
		}
	}
}

// TestCompareIDs: text alone would put revision 99 after 100.
func TestCompareIDs(t *testing.T) {
	want := []backup.SnapshotID{
		"20261120T101500Z-r99-zzzzzz", "20261120T101500Z-r100-aaaaaa", "20261120T101500Z-r100-bbbbbb",
		"20261120T101501Z-r1-aaaaaa",
	}
	got := slices.Clone(want)
	slices.Reverse(got)
	slices.SortFunc(got, backup.CompareIDs)
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func mark() *backup.Mark {
	return &backup.Mark{
		Format: backup.MarkFormat, Kind: backup.MarkDamaged, ID: "20261120T101500Z-r1-k7q2xd", Reason: "byte 7",
		At: time.Date(2026, 11, 20, 10, 15, 0, 0, time.UTC), By: "root@host", Defect: backup.Changed,
	}
}

func TestMark(t *testing.T) {
	raw, err := mark().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := backup.ParseMark(raw); err != nil || *got != *mark() {
		t.Errorf("got %+v, %v", got, err)
	}
	for i := range raw {
		flipped := bytes.Clone(raw)
		flipped[i] ^= 1
		if _, err := backup.ParseMark(flipped); !errors.Is(err, backup.ErrCorrupt) {
			t.Fatalf("flip in byte %d: got %v", i, err)
		}
	}
	var unknown *backup.UnknownFormatError
	if _, err := backup.ParseMark([]byte(`{"format": "backupd/mark/v2"}`)); !errors.As(err, &unknown) {
		t.Errorf("got %v", err)
	}
	for want, change := range map[string]func(*backup.Mark){
		"needs a reason":    func(m *backup.Mark) { m.Reason = " " },
		"501 characters":    func(m *backup.Mark) { m.Reason = strings.Repeat("ä", 501) },
		"one line":          func(m *backup.Mark) { m.Reason = "a\nb" },
		"kind of mark":      func(m *backup.Mark) { m.Kind = "../x" },
		"parse snapshot id": func(m *backup.Mark) { m.ID = "x" }, "format": func(m *backup.Mark) { m.Format = "x" },
	} {
		m := mark()
		change(m)
		if _, err := m.Marshal(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestCheckClusterName(t *testing.T) {
	for _, good := range []string{"a", "prod-eu.1_x", strings.Repeat("a", 63), "0"} {
		if err := backup.CheckClusterName(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", ".", "..", "-a", "_a", "a/b", "a b", "ä", strings.Repeat("a", 64),
		backup.MarkerKey} {
		if err := backup.CheckClusterName(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestErrors(t *testing.T) {
	cause := errors.New("cause")
	err := fmt.Errorf("around: %w", backup.Corruptf("page %d: %w", 7, cause))
	if !errors.Is(err, backup.ErrCorrupt) || !errors.Is(err, cause) || err.Error() != "around: page 7: cause" {
		t.Errorf("got %v", err)
	}
	hinted := backup.WithHint(err, "do %s", "this")
	var hint *backup.HintError
	if !errors.As(hinted, &hint) || hint.Hint != "do this" || !errors.Is(hinted, cause) ||
		hinted.Error() != err.Error() {
		t.Errorf("got %v", hinted)
	}
	if backup.WithHint(nil, "x") != nil {
		t.Error("a hint makes an error of none")
	}
	if got := (&backup.RefusedError{Reason: "it runs"}).Error(); got != "refused: it runs" {
		t.Errorf("got %s", got)
	}
}
