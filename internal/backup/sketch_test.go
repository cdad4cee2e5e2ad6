package backup_test

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// fullSketch has lists of the largest size.
func fullSketch(mod int64) backup.Sketch {
	rng := rand.New(rand.NewPCG(1, 2))
	s := backup.Sketch{Limit: backup.NoLimit - 1, From: backup.Revision(mod)}
	for i := range backup.MaxSketchEntries {
		e := backup.SketchEntry{Key: rng.Uint64() / 2, Mod: backup.Revision(mod - int64(i)), Digest: rng.Uint64()}
		e.Create = e.Mod - backup.Revision(rng.IntN(1<<14))
		s.Sample = append(s.Sample, e)
	}
	s.Recent = slices.SortedFunc(slices.Values(s.Sample), backup.ByRevision)
	slices.SortFunc(s.Sample, backup.ByHash)
	return s
}

// TestSketch_JSON: a sketch survives JSON, and takes few bytes of a manifest.
func TestSketch_JSON(t *testing.T) {
	for name, c := range map[string]struct {
		sketch backup.Sketch
		bytes  int
	}{
		"no key": {backup.Sketch{Limit: backup.NoLimit}, 40},
		"zero":   {backup.Sketch{}, 60},
		"one key": {backup.Sketch{
			Limit:  backup.NoLimit,
			Sample: []backup.SketchEntry{{Key: 1, Mod: 2, Digest: 3}},
			Recent: []backup.SketchEntry{{Key: 1, Mod: 2, Digest: 3}},
		}, 100},
		"no key in both": {backup.Sketch{
			Limit: 10, Sample: []backup.SketchEntry{{Key: 1, Mod: 50, Digest: 3}},
			From: 90, Recent: []backup.SketchEntry{{Key: 20, Mod: 95, Digest: 4}},
		}, 120},
		"full":           {fullSketch(30_000_000_000), 16 << 10},
		"huge revisions": {fullSketch(math.MaxInt64), 20 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			raw, err := json.Marshal(c.sketch)
			if err != nil {
				t.Fatal(err)
			}
			var back backup.Sketch
			if err := json.Unmarshal(raw, &back); err != nil || !reflect.DeepEqual(back, c.sketch) {
				t.Errorf("got %+v, %v, want %+v", back, err, c.sketch)
			}
			if len(raw) > c.bytes {
				t.Errorf("%d bytes, want at most %d", len(raw), c.bytes)
			}
		})
	}
}

// TestSketch_Bytes: the stored form does not change.
func TestSketch_Bytes(t *testing.T) {
	s := backup.Sketch{
		Limit:  0x1122,
		Sample: []backup.SketchEntry{{Key: 0x0102, Mod: 300, Create: 295, Digest: 0xff}},
		From:   301,
		Recent: []backup.SketchEntry{{Key: 0x0102, Mod: 300, Create: 295, Digest: 0xff}},
	}
	raw, err := json.Marshal(s)
	const want = `{"limit":"1122","sample":"AAAAAAAAAQIAAAAAAAAA/6wCBQ==","from":301,` +
		`"recent":"AAAAAAAAAQIAAAAAAAAA/6wCBQ=="}`
	if err != nil || string(raw) != want {
		t.Errorf("got %s, %v, want %s", raw, err, want)
	}
}

// TestSketch_Refuses: what breaks a promise of a sketch is neither written nor read.
func TestSketch_Refuses(t *testing.T) {
	entry := func(key, digest uint64, mod backup.Revision) backup.SketchEntry {
		return backup.SketchEntry{Key: key, Mod: mod, Digest: digest}
	}
	a, b := entry(1, 1, 5), entry(2, 1, 4)
	list := func(entries ...backup.SketchEntry) []backup.SketchEntry { return entries }
	long, longRecent := fullSketch(1<<20), fullSketch(1<<20)
	long.Sample = append(list(entry(0, 0, 1)), long.Sample...)
	longRecent.Recent = append(list(entry(0, 0, 1)), longRecent.Recent...)
	for _, c := range []struct {
		sketch backup.Sketch
		want   string
	}{
		{backup.Sketch{Limit: backup.NoLimit, Sample: list(b, a)}, "not in order"},
		{backup.Sketch{Limit: backup.NoLimit, Sample: list(a, a)}, "there twice"},
		{backup.Sketch{Limit: 2, Sample: list(a, b)}, "hash 2 is not below the limit 2"},
		{backup.Sketch{Limit: backup.NoLimit, Sample: list(entry(1, 1, 0))}, "and written at 0"},
		{backup.Sketch{Limit: backup.NoLimit, Recent: list(a, b)}, "not in order"},
		{backup.Sketch{Limit: backup.NoLimit, From: 5}, "0 keys do not begin at revision 5"},
		{backup.Sketch{Limit: backup.NoLimit, From: -1}, "do not begin at revision -1"},
		{backup.Sketch{Limit: backup.NoLimit, Sample: list(a, b), Recent: list(a)}, "missing in recent"},
		{backup.Sketch{Limit: 2, From: 5, Recent: list(a)}, "missing in sample"},
		{long, "sample: 257 keys are more than 256"},
		{longRecent, "recent: 257 keys are more than 256"},
	} {
		if raw, err := json.Marshal(c.sketch); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %s, %v, want %q", raw, err, c.want)
		}
	}
	for text, want := range map[string]string{
		`null`:                   "want sample and recent",
		`"text"`:                 "cannot unmarshal",
		`{"from":0,"sample":""}`: "want sample and recent",
		`{"sample":"AAAAAAAAAQIAAAAAAAAA","recent":""}`:                     "sample: it is cut off",
		`{"sample":"","recent":"AAAAAAAAAQIAAAAAAAAA/w=="}`:                 "recent: it is cut off",
		`{"sample":"AAAAAAAAAQIAAAAAAAAA/6w=","recent":""}`:                 "it is cut off",
		`{"sample":"AAAAAAAAAQIAAAAAAAAA/6ys","recent":""}`:                 "a revision is not a number",
		`{"sample":"AAAAAAAAAQIAAAAAAAAA/6yCAA==","recent":""}`:             "a revision is not a number",
		`{"sample":"AAAAAAAAAQIAAAAAAAAA/////////////wE=","recent":""}`:     "a revision is not a number",
		`{"sample":"AAAA*","recent":""}`:                                    "illegal base64",
		`{"limit":"xyz","sample":"","recent":""}`:                           "want a hexadecimal number",
		`{"limit":"00ab","sample":"","recent":""}`:                          "want a hexadecimal number",
		`{"limit":"ffffffffffffffff","sample":"","recent":""}`:              "want a hexadecimal number",
		`{"limit":"0","sample":"AAAAAAAAAQIAAAAAAAAA/6wCBQ==","recent":""}`: "is not below the limit",
	} {
		var s backup.Sketch
		if err := json.Unmarshal([]byte(text), &s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %+v, %v, want %q", text, s, err, want)
		}
	}
}

// FuzzSketch: what is read is written again with the same bytes, and keeps its
// promises.
func FuzzSketch(f *testing.F) {
	for _, s := range []backup.Sketch{{}, {Limit: backup.NoLimit}, fullSketch(1 << 20)} {
		raw, err := json.Marshal(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var s backup.Sketch
		if json.Unmarshal(raw, &s) != nil {
			return
		}
		again, err := json.Marshal(s)
		if err != nil {
			t.Fatalf("%s was read but cannot be written: %v", raw, err)
		}
		var back backup.Sketch
		if err := json.Unmarshal(again, &back); err != nil || !reflect.DeepEqual(s, back) {
			t.Fatalf("%s became %s: %+v, want %+v (%v)", raw, again, back, s, err)
		}
		if len(s.Sample) > backup.MaxSketchEntries || len(s.Recent) > backup.MaxSketchEntries ||
			!slices.IsSortedFunc(s.Sample, backup.ByHash) || !slices.IsSortedFunc(s.Recent, backup.ByRevision) {
			t.Fatalf("%s was read as %+v", raw, s)
		}
	})
}
