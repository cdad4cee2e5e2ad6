package backup_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// full returns a manifest with every field set.
func full() *backup.Manifest {
	at := time.Date(2026, 11, 20, 10, 15, 0, 123, time.UTC)
	hash := backup.HashKV{Hash: 4, Revision: 123456, CompactRevision: 100}
	member := backup.Member{ID: 0xab, Name: "m1", PeerURLs: []string{"http://h:2380"},
		ClientURLs: []string{"http://h:2379"}, Learner: true}
	return &backup.Manifest{
		Format: backup.ManifestFormat, Repository: "the-only-repository",
		ID: "20261120T101500Z-r123456-k7q2xd", Timeline: "t2-abcdef",
		Origin: &backup.Origin{Timeline: "t1-abcdef", Snapshot: "20261119T101500Z-r99-k7q2xd", Reason: "it was wiped"},
		Capture: backup.Capture{
			Cluster: "prod", ClusterID: 0xcd, StartedAt: at, Source: member, Endpoint: "http://h:2379",
			Members: []backup.Member{member}, EtcdVersion: "3.7.3", StorageVersion: "3.7.0",
			Revision: 123456, CompactRevision: 100,
			Kubernetes: &backup.Kubernetes{Objects: 3, PlainSecrets: 1, Keys: []backup.EncryptionKey{
				{Provider: "aescbc", Name: "k", Objects: 2},
			}},
			HighWaterRevision: 123460, NewestTimeline: "t2-abcdef", HashKV: hash,
			LiveHash: new(uint32(9)),
			Sketch: backup.Sketch{Limit: backup.NoLimit, Sample: []backup.SketchEntry{{Key: 1, Mod: 2, Digest: 3}},
				Recent: []backup.SketchEntry{{Key: 1, Mod: 2, Digest: 3}}},
			QuotaBytes: 2 << 30, CommittedIndex: 15, HighWaterIndex: 14, HighWaterTerm: 13, SourceIndex: 12, SourceTerm: 11,
			MemberHashes: []backup.MemberHash{
				{MemberID: 0xab, Endpoint: "http://h:2379", Result: backup.HashDiffers, Answer: &hash, Detail: "d"},
			},
			Suspect:     []string{"why"},
			Unconfirmed: []string{"no member was compared"},
			Keys:        5, Leases: 6, Alarms: []backup.Alarm{{MemberID: 0xab, Type: "NOSPACE"}},
			AuthEnabled: true, AuthRevision: 4, V2Keys: true, Cautions: []string{"look"}, RaftTerm: 7, RaftIndex: 8,
			Plain: backup.Blob{Bytes: 9, SHA256: backup.Digest{1}},
			Tool:  "v1", Imported: &backup.Imported{File: "etcd.db", TimeFrom: backup.TimeFromName},
		},
		FinishedAt: at.Add(time.Second), Stored: backup.Blob{Bytes: 10, SHA256: backup.Digest{2}},
		Table:    &backup.Blob{Bytes: 29, SHA256: backup.Digest{6}},
		Encoding: backup.Encoding{Compression: "zstd", Encryption: "age", Recipients: []string{"age1x"}},
		Companions: &backup.Companions{
			Host: "h", At: at, Paths: []string{"/a", "/z"}, Secrets: []string{"ns/s"},
			Plain:   backup.Blob{Bytes: 11, SHA256: backup.Digest{3}},
			Stored:  backup.Blob{Bytes: 12, SHA256: backup.Digest{4}},
			Missing: []backup.MissingCompanion{{Path: "/z", Reason: "no such file"}},
			Files: []backup.CompanionFile{
				{Path: "/a/f", Mode: "0600", Bytes: 13, SHA256: backup.Digest{5}}, {Path: "/a/l", Link: "f"},
				{Path: "/kubernetes.io/secrets/ns/s/secret.json", Mode: "0600", SHA256: backup.Digest{6}},
			},
		},
	}
}

func marshal(t testing.TB, m *backup.Manifest) []byte {
	t.Helper()
	raw, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestManifest_RoundTrip(t *testing.T) {
	m := full()
	for _, v := range []reflect.Value{reflect.ValueOf(*m), reflect.ValueOf(m.Capture)} {
		for i := range v.NumField() {
			if v.Field(i).IsZero() {
				t.Errorf("the test leaves %s out", v.Type().Field(i).Name)
			}
		}
	}
	raw := marshal(t, m)
	got, err := backup.ParseManifest(raw)
	if err != nil || !reflect.DeepEqual(got, m) {
		t.Errorf("got %+v, %v, want %+v", got, err, m)
	}
	if keys := m.DataKeys(); len(keys) != 2 || keys[0] != m.DataKey() || keys[1] != m.FilesKey() ||
		keys[1] != "prod/data/20261120T101500Z-k7q2xd.files.tar.zst.age" {
		t.Errorf("the objects are %q", keys)
	}
	if m.Key() != "prod/snapshots/20261120T101500Z-r123456-k7q2xd.t2-abcdef.8.suspect.json" ||
		m.DataKey() != "prod/data/20261120T101500Z-k7q2xd.db.zst.age" || m.Verified() {
		t.Errorf("got %s, %s, verified %v", m.Key(), m.DataKey(), m.Verified())
	}
}

func TestEncoding(t *testing.T) {
	for _, c := range []struct {
		e            backup.Encoding
		suffix, name string
	}{
		{backup.Encoding{}, "", "none"},
		{backup.Encoding{Compression: "zstd"}, ".zst", "zstd"},
		{backup.Encoding{Encryption: "age"}, ".age", "age"},
		{backup.Encoding{Compression: "zstd", Encryption: "age"}, ".zst.age", "zstd+age"},
	} {
		if c.e.Suffix() != c.suffix || c.e.String() != c.name {
			t.Errorf("got %q, %q, want %q, %q", c.e.Suffix(), c.e, c.suffix, c.name)
		}
	}
}

func TestManifest_Validate(t *testing.T) {
	for want, change := range map[string]func(*backup.Manifest){
		`format "x"`:              func(m *backup.Manifest) { m.Format = "x" },
		"parse snapshot id":       func(m *backup.Manifest) { m.ID = "x" },
		"cluster name":            func(m *backup.Manifest) { m.Cluster = "../x" },
		"tells revision":          func(m *backup.Manifest) { m.Revision++ },
		"want at least 1":         func(m *backup.Manifest) { m.Revision = 0; m.ID = m.ID.DataName().WithRevision(0) },
		"is after revision":       func(m *backup.Manifest) { m.CompactRevision = m.Revision + 1 },
		`timeline ""`:             func(m *backup.Manifest) { m.Timeline = "" },
		`timeline "x"`:            func(m *backup.Manifest) { m.Timeline = "x" },
		"no start or finish time": func(m *backup.Manifest) { m.FinishedAt = time.Time{} },
		"size or sha256":          func(m *backup.Manifest) { m.Stored.SHA256 = backup.Digest{} },
		"have a seek table":       func(m *backup.Manifest) { m.Table = nil },
		"and no others have":      func(m *backup.Manifest) { m.Encoding.Compression = "" },
		`compression "lzma"`:      func(m *backup.Manifest) { m.Encoding.Compression = "lzma" },
		`encryption "rot13"`:      func(m *backup.Manifest) { m.Encoding.Encryption = "rot13" },
		"no members":              func(m *backup.Manifest) { m.Members = nil },
		"is listed twice":         func(m *backup.Manifest) { m.Members = append(m.Members, m.Members[0]) },
		"peer URL":                func(m *backup.Manifest) { m.Members[0].PeerURLs[0] = "http://a b" },
	} {
		m := full()
		change(m)
		if err := m.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
		if _, err := m.Marshal(); err == nil {
			t.Errorf("%s: it was marshalled", want)
		}
	}
}

// TestParseManifest_AnyByte: no byte of a manifest changes, goes or is added
// unseen.
func TestParseManifest_AnyByte(t *testing.T) {
	raw := marshal(t, full())
	check := func(what string, i int, damaged []byte) {
		t.Helper()
		if m, err := backup.ParseManifest(damaged); !errors.Is(err, backup.ErrCorrupt) || m != nil {
			t.Fatalf("%s %d: got %v, %v", what, i, m, err)
		}
	}
	for i := range raw {
		flipped := bytes.Clone(raw)
		flipped[i] ^= 1 << (i % 8)
		check("flip in byte", i, flipped)
		check("cut at byte", i, raw[:i])
		check("without byte", i, append(bytes.Clone(raw[:i]), raw[i+1:]...))
		check("space before byte", i, append(append(bytes.Clone(raw[:i]), ' '), raw[i:]...))
	}
	check("twice", 0, append(bytes.Clone(raw), raw...))
	check("newline at the end", 0, append(bytes.Clone(raw), '\n'))
	check("huge", 0, make([]byte, backup.MaxManifestBytes+1))
}

func TestParseManifest_Format(t *testing.T) {
	// Another format need not have anything else that we know.
	var unknown *backup.UnknownFormatError
	_, err := backup.ParseManifest([]byte(`{"format": "backupd/snapshot/v2", "id": 7}`))
	if !errors.As(err, &unknown) || unknown.Format != "backupd/snapshot/v2" || errors.Is(err, backup.ErrCorrupt) {
		t.Errorf("got %v", err)
	}
	for _, bad := range []string{"", "null", "{}", "[]", "7", `{"format": 7}`, `{"format": ""}`,
		`{"format": "backupd/snapshot/v1"}`} {
		if _, err := backup.ParseManifest([]byte(bad)); !errors.Is(err, backup.ErrCorrupt) {
			t.Errorf("%s: got %v", bad, err)
		}
	}
}

// TestParseManifest_UnknownField: a later version of this format may add some.
func TestParseManifest_UnknownField(t *testing.T) {
	raw := bytes.Replace(marshal(t, full()), []byte(`"keys": 5`), []byte(`"keys": 5, "colour": "red"`), 1)
	if m, err := backup.ParseManifest(reseal(t, raw)); err != nil || m.Keys != 5 {
		t.Errorf("got %v, %v", m, err)
	}
}

func TestManifest_Marshal_TooLong(t *testing.T) {
	m := full()
	m.Suspect = []string{strings.Repeat("x", backup.MaxManifestBytes)}
	if _, err := m.Marshal(); err == nil {
		t.Error("nobody would read it")
	}
}

// FuzzParseManifest: whatever the bytes, no panic; and what is accepted says
// the same after a round trip.
func FuzzParseManifest(f *testing.F) {
	f.Add(marshal(f, full()))
	f.Add([]byte(`{"format": "backupd/snapshot/v2"}`))
	f.Add([]byte(`{"format": "backupd/snapshot/v1", "id": "20261120T101500Z-r1-k7q2xd"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, raw := range [][]byte{raw, reseal(t, raw)} { // past the seal too
			m, err := backup.ParseManifest(raw)
			if err != nil {
				continue
			}
			again, err := backup.ParseManifest(marshal(t, m))
			if err != nil {
				t.Fatalf("its own writing: %v", err)
			}
			a, _ := json.Marshal(m)
			b, _ := json.Marshal(again)
			if !bytes.Equal(a, b) {
				t.Fatalf("got %s, want %s", b, a)
			}
			if _, err := backup.ParseKey(m.Key()); err != nil {
				t.Fatal(err)
			}
			if _, err := backup.ParseKey(m.DataKey()); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// FuzzParseKey: what is accepted is written the same way again.
func FuzzParseKey(f *testing.F) {
	f.Add("prod/snapshots/20261120T101500Z-r1-k7q2xd.t1-abcdef.0.json")
	f.Add("prod/snapshots/20261120T101500Z-r1-k7q2xd.t1-abcdef.0.suspect.json")
	f.Add("prod/marks/20261120T101500Z-r1-k7q2xd.pin.json")
	f.Add("prod/data/20261120T101500Z-k7q2xd.db.zst.age")
	f.Add("backupd.json")
	f.Fuzz(func(t *testing.T, s string) {
		k, err := backup.ParseKey(s)
		if err != nil {
			return
		}
		if k.String() != s {
			t.Fatalf("%q became %q", s, k)
		}
		if k.Kind != backup.KindData && k.ID.DataName() == "" || k.Kind == backup.KindData && k.Data == "" {
			t.Fatalf("%q: %+v tells nothing", s, k)
		}
	})
}
