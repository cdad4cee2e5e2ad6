package restore_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/etcddb"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/restore"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
)

// mangled writes a copy of path that change has worked on.
func mangled(t testing.TB, path string, change func([]byte) []byte) string {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	out := filepath.Join(t.TempDir(), "mangled.db")
	must(t, os.WriteFile(out, change(data), 0o600))
	return out
}

func fileBytes(t testing.TB, path string) int64 {
	t.Helper()
	st, err := os.Stat(path)
	must(t, err)
	return st.Size()
}

func TestFromFile_Refuses(t *testing.T) {
	f := newest(t)
	flip := func(at int) func([]byte) []byte {
		return func(b []byte) []byte { b[(at+len(b))%len(b)] ^= 1; return b }
	}
	keep := func(n int) func([]byte) []byte { // of negative numbers all but so many
		return func(b []byte) []byte { return b[:(n+len(b))%len(b)] }
	}
	text := func([]byte) []byte { return bytes.Repeat([]byte("text"), 4096) }
	half := int(fileBytes(t, f.snapshot) / 2)
	const missing = "snapshot missing hash but --skip-hash-check=false"
	for name, c := range map[string]struct {
		path   string
		check  restore.HashCheck
		prefix string
		is     error
	}{
		"WrongTrailer": {mangled(t, f.snapshot, flip(-1)), restore.RequireHash, "expected sha256 ", backup.ErrCorrupt},
		"FlippedByte": {
			mangled(t, f.snapshot, flip(half)), restore.RequireHash, "expected sha256 ", backup.ErrCorrupt,
		},
		"NoTrailer": {mangled(t, f.snapshot, keep(-32)), restore.RequireHash, missing, backup.ErrCorrupt},
		"Stopped":   {f.stopped, restore.RequireHash, missing, backup.ErrCorrupt},
		"Truncated": {
			mangled(t, f.snapshot, keep(-512)), restore.RequireHash, "expected sha256 ", backup.ErrCorrupt,
		},
		"TruncatedSkip": {mangled(t, f.stopped, keep(20<<10)), restore.SkipHash, "", backup.ErrCorrupt},
		"Empty":         {mangled(t, f.snapshot, keep(0)), restore.SkipHash, "", backup.ErrCorrupt},
		"Text":          {mangled(t, f.snapshot, text), restore.SkipHash, "", backup.ErrCorrupt},
		"Directory":     {t.TempDir(), restore.RequireHash, "", nil},
		"Missing":       {filepath.Join(t.TempDir(), "missing"), restore.RequireHash, "", fs.ErrNotExist},
	} {
		_, err := restore.FromFile(t.Context(), c.path, c.check, nil)
		if err == nil || !strings.HasPrefix(err.Error(), c.prefix) || c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%s: error %v, want one that begins with %q and is %v", name, err, c.prefix, c.is)
		}
	}
}

// TestFromFile_Raw restores files that were copied out of a data directory,
// also of a running server, as etcdutl does with --skip-hash-check.
func TestFromFile_Raw(t *testing.T) {
	f := newest(t)
	for name, path := range map[string]string{
		"Running": f.running, "Stopped": f.stopped,
		// This hash is wrong, and the flag says to ignore it.
		"WrongTrailer": mangled(t, f.snapshot, func(b []byte) []byte { b[len(b)-1] ^= 1; return b }),
	} {
		t.Run(name, func(t *testing.T) {
			src, err := restore.FromFile(t.Context(), path, restore.SkipHash, nil)
			must(t, err)
			dir := filepath.Join(t.TempDir(), "data")
			req := request{
				Site:    restore.Site{Name: "m1", DataDir: dir},
				Request: restore.Request{InitialCluster: "m1=http://10.0.0.1:2380"},
			}
			w, err := req.plan(t.Context(), src)
			must(t, err)
			must(t, req.execute(t.Context(), w, src))
			facts, err := etcddb.Inspect(t.Context(), databaseOf(dir))
			must(t, err)
			// The server writes to its file now and then only: the copy of
			// the running one may be some revisions behind.
			if name != "Running" && facts.HashKV != f.hash {
				t.Errorf("HashKV %+v, want %+v", facts.HashKV, f.hash)
			}
			if said := src.About().Revision; facts.Revision != said || said == 0 {
				t.Errorf("revision %d, the source said %d", facts.Revision, said)
			}
		})
	}
}

// TestExecute_SourceChanges damages a file after it was checked.
func TestExecute_SourceChanges(t *testing.T) {
	f := newest(t)
	for name, change := range map[string]func([]byte) []byte{
		"Flipped":   func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		"Truncated": func(b []byte) []byte { return b[:len(b)-4096] },
		"Longer":    func(b []byte) []byte { return append(b, make([]byte, 8192)...) },
		"Gone":      nil,
	} {
		t.Run(name, func(t *testing.T) {
			g := newGround(t, f, t.TempDir(), "old", false)
			path := copyFile(t, f.snapshot, filepath.Join(t.TempDir(), "snapshot.db"))
			src := fromFile(t, path)
			if change == nil {
				must(t, os.Remove(path))
			} else {
				copyFile(t, mangled(t, path, change), path)
			}
			failsClean(t, g, src, map[bool]error{true: backup.ErrCorrupt, false: fs.ErrNotExist}[change != nil])
		})
	}
}

// TestFile_Replaced puts another file of the same size at the path after it was
// checked. Its own trailer is right, or is not looked at.
func TestFile_Replaced(t *testing.T) {
	f := newest(t)
	for _, check := range []restore.HashCheck{restore.RequireHash, restore.SkipHash} {
		path := copyFile(t, f.snapshot, filepath.Join(t.TempDir(), "snapshot.db"))
		src, err := restore.FromFile(t.Context(), path, check, nil)
		must(t, err)
		copyFile(t, mangled(t, path, func(b []byte) []byte {
			plain := b[:len(b)-restore.TrailerBytes]
			plain[len(plain)/2] ^= 1
			sum := sha256.Sum256(plain)
			return append(plain, sum[:]...)
		}), path)
		out, err := os.Create(filepath.Join(t.TempDir(), "db"))
		must(t, err)
		err = src.Place(t.Context(), out, func(int64, int64) {})
		if !errors.Is(err, backup.ErrCorrupt) || !strings.Contains(err.Error(), "has changed since it was checked") {
			t.Errorf("check %d: error %v", check, err)
		}
		must(t, out.Close())
	}
}

// TestSource_SHA256 is the same for one database, wherever it comes from: in a
// repository, in a file, in a file without a trailer.
func TestSource_SHA256(t *testing.T) {
	f := newest(t)
	_, m := stored(t, f)
	want := source(mem.New(), m, nil).About()
	plain := mangled(t, f.snapshot, func(b []byte) []byte { return b[:len(b)-restore.TrailerBytes] })
	wrong := mangled(t, f.snapshot, func(b []byte) []byte { b[len(b)-1] ^= 1; return b })
	for path, check := range map[string]restore.HashCheck{
		f.snapshot: restore.RequireHash, plain: restore.SkipHash, wrong: restore.SkipHash,
	} {
		src, err := restore.FromFile(t.Context(), path, check, nil)
		must(t, err)
		if got := src.About(); got.SHA256 != want.SHA256 || got.Bytes != want.Bytes {
			t.Errorf("%s is %d bytes with sha256 %s, the stored one %d with %s", path, got.Bytes, got.SHA256,
				want.Bytes, want.SHA256)
		}
	}
}

// failsClean fails unless the restore fails so and has touched nothing.
func failsClean(t testing.TB, g *ground, src restore.Source, want error) {
	t.Helper()
	req := g.request()
	w, err := req.plan(t.Context(), src)
	must(t, err)
	before := identities(t, g.DataDir)
	if err := req.execute(t.Context(), w, src); !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
	same(t, "after it failed", identities(t, g.DataDir), before)
	noLitter(t, g.root)
	if asides, _ := filepath.Glob(g.DataDir + restore.AsidePrefix + "*"); len(asides) > 0 {
		t.Errorf("moved aside: %v", asides)
	}
}

// stored makes the object and the manifest of a snapshot in a repository.
func stored(t testing.TB, f *fixture) ([]byte, *backup.Manifest) {
	t.Helper()
	facts, err := etcddb.Inspect(t.Context(), f.snapshot)
	must(t, err)
	plain, err := os.ReadFile(f.snapshot)
	must(t, err)
	enc, err := codec.NewEncoder(bytes.NewReader(plain), codec.Options{Compress: codec.Zstd})
	must(t, err)
	object, err := io.ReadAll(enc)
	must(t, err)
	must(t, enc.Close())
	m := &backup.Manifest{ID: backup.NewDataName(time.Now()).WithRevision(facts.Revision),
		Encoding: codec.Options{Compress: codec.Zstd}.Encoding(), Capture: backup.Capture{
			Cluster: "c", Revision: facts.Revision, Members: facts.Members,
		}}
	m.Plain = backup.Blob{Bytes: int64(len(plain)), SHA256: sha256.Sum256(plain)}
	_, m.Stored = enc.Sums()
	m.Table = enc.Table()
	return object, m
}

// TestFromSnapshot_Damaged meets damage of a stored object at its very end and
// elsewhere, when most of it is restored already.
func TestFromSnapshot_Damaged(t *testing.T) {
	f := newest(t)
	object, m := stored(t, f)
	flip := func(at int) func([]byte) []byte {
		return func(b []byte) []byte { b[at] ^= 1; return b }
	}
	for name, change := range map[string]func([]byte) []byte{
		"Whole": nil, "LastByte": flip(len(object) - 1), "Middle": flip(len(object) / 2), "First": flip(0),
		"Truncated": func(b []byte) []byte { return b[:len(b)-1] },
		"Replaced":  func(b []byte) []byte { return make([]byte, len(b)) },
	} {
		t.Run(name, func(t *testing.T) {
			content := bytes.Clone(object)
			if change != nil {
				content = change(content)
			}
			store := mem.New()
			must(t, store.Create(t.Context(), m.DataKey(), bytes.NewReader(content)))
			g := newGround(t, f, t.TempDir(), "old", false)
			src := source(store, m, nil)
			if change != nil {
				failsClean(t, g, src, backup.ErrCorrupt)
				return
			}
			req := g.request()
			w, err := req.plan(t.Context(), src)
			must(t, err)
			must(t, req.execute(t.Context(), w, src))
			if !g.isNew(t, f) {
				t.Error("the target is not the new one")
			}
		})
	}
}

// TestFromSnapshot_RecordedMembers plans from the members in the manifest.
func TestFromSnapshot_RecordedMembers(t *testing.T) {
	url := func(n string) []string { return []string{"http://10.0.0." + n + ":2380"} }
	blob := backup.Blob{Bytes: 1 << 20, SHA256: backup.Digest{1}}
	m := &backup.Manifest{Capture: backup.Capture{
		Plain: blob,
		Members: []backup.Member{
			{ID: 1, Name: "b", PeerURLs: url("2")}, {ID: 2, Name: "a", PeerURLs: url("1")},
			{ID: 3, Name: "slow", PeerURLs: url("3"), Learner: true}, {ID: 4, PeerURLs: url("4")},
		},
	}}
	dir := t.TempDir()
	tokens := map[string]bool{}
	for range 2 {
		p, err := restore.NewPlan(source(mem.New(), m, nil).About(), restore.Request{})
		must(t, err)
		_, err = (&restore.Site{OutputDir: dir}).Check(t.Context(), p)
		must(t, err)
		tokens[p.Token] = true
		if got, want := p.InitialCluster(), "a=http://10.0.0.1:2380,b=http://10.0.0.2:2380"; got != want {
			t.Errorf("members %s, want %s", got, want)
		}
		notes := strings.Join(p.Notes, "\n")
		if !strings.Contains(notes, "slow") || !strings.Contains(notes, "never started") {
			t.Errorf("notes:\n%s", notes)
		}
	}
	if len(tokens) != 2 {
		t.Error("two restores have the same token")
	}
	for name, members := range map[string][]backup.Member{
		"None": nil, "OnlyLearners": m.Members[2:],
		"SameName":    {{ID: 1, Name: "default", PeerURLs: url("1")}, {ID: 2, Name: "default", PeerURLs: url("2")}},
		"CommaInName": {{ID: 1, Name: "a,b", PeerURLs: url("1")}},
		"EqualInName": {{ID: 1, Name: "a=b", PeerURLs: url("1")}},
		"CommaInURL":  {{ID: 1, Name: "a", PeerURLs: []string{"http://10.0.0.1:2380,b=http://10.0.0.2:2380"}}},
	} {
		src := source(mem.New(), &backup.Manifest{Capture: backup.Capture{Plain: blob, Members: members}}, nil)
		if p, err := restore.NewPlan(src.About(), restore.Request{}); err == nil {
			t.Errorf("%s: planned %s", name, p.InitialCluster())
		}
	}
}

// source is a stored snapshot as a source of a restore.
func source(s storage.Store, m *backup.Manifest, ids codec.Identities) restore.Source {
	return snapshot.NewSource(repository.At(s, "").Cluster(m.Cluster), m, ids)
}
