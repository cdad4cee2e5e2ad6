package codec_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"filippo.io/age"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/codec"
)

func sample(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	p := make([]byte, n)
	for i := range p {
		p[i] = "abcdefgh"[r.IntN(8)] // compresses, but not to nothing
	}
	return p
}

func identity(t *testing.T) (*age.X25519Identity, string) {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "key.txt")
	if err := os.WriteFile(name, []byte("# a comment\n"+id.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return id, name
}

func options(t *testing.T) map[string]struct {
	o   codec.Options
	ids codec.Identities
} {
	t.Helper()
	id, file := identity(t)
	hybrid, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	classic := mustRecipients(t, id.Recipient().String())
	ids, err := codec.ReadIdentities([]string{file})
	if err != nil {
		t.Fatal(err)
	}
	type c = struct {
		o   codec.Options
		ids codec.Identities
	}
	return map[string]c{
		"none":     {},
		"zstd":     {o: codec.Options{Compress: codec.Zstd}},
		"age":      {codec.Options{Recipients: classic}, ids},
		"zstd+age": {codec.Options{Compress: codec.Zstd, Recipients: classic}, ids},
		"zstd+pq": {codec.Options{Compress: codec.Zstd, Recipients: mustRecipients(t, hybrid.Recipient().String())},
			codec.Identities{hybrid}},
	}
}

func mustRecipients(t *testing.T, keys ...string) codec.Recipients {
	t.Helper()
	r, err := codec.ParseRecipients(keys, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func encode(t *testing.T, plain []byte, o codec.Options) ([]byte, codec.Want) {
	t.Helper()
	e, err := codec.NewEncoder(bytes.NewReader(plain), o)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	stored, err := io.ReadAll(e)
	if err != nil {
		t.Fatal(err)
	}
	var w codec.Want
	sum, blob := e.Sums()
	if sum.Bytes != int64(len(plain)) || sum.CRC32C != crc32.Checksum(plain, crc32.MakeTable(crc32.Castagnoli)) {
		t.Errorf("plain checksum %+v of %d bytes", sum, len(plain))
	}
	w.Plain, w.Stored = backup.Blob{Bytes: int64(len(plain)), SHA256: sha256.Sum256(plain)}, blob
	w.Table = e.Table()
	return stored, w
}

func decode(stored []byte, o codec.Options, w codec.Want, ids codec.Identities) ([]byte, error) {
	d, err := codec.NewDecoder(bytes.NewReader(stored), o.Encoding(), w, ids)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return io.ReadAll(d)
}

func TestRoundTrip(t *testing.T) {
	for name, c := range options(t) {
		for _, size := range []int{1, 32, 4 << 10, 300<<10 + 7, 9 << 20} {
			plain := sample(size)
			stored, w := encode(t, plain, c.o)
			if w.Stored.Bytes != int64(len(stored)) || w.Stored.SHA256 != sha256.Sum256(stored) {
				t.Errorf("%s/%d: stored blob %+v", name, size, w.Stored)
			}
			got, err := decode(stored, c.o, w, c.ids)
			if err != nil || !bytes.Equal(got, plain) {
				t.Errorf("%s/%d: decode: %v, equal %v", name, size, err, bytes.Equal(got, plain))
			}
		}
	}
}

// Each way of damage must end in ErrCorrupt, whatever the decoders make of it.
func TestDecode_ErrCorrupt(t *testing.T) {
	for name, c := range options(t) {
		plain := sample(200 << 10)
		stored, w := encode(t, plain, c.o)
		mutations := map[string]func([]byte) []byte{
			"truncated by one": func(p []byte) []byte { return p[:len(p)-1] },
			"truncated by 32":  func(p []byte) []byte { return p[:len(p)-32] },
			"empty":            func(p []byte) []byte { return nil },
			"one byte more":    func(p []byte) []byte { return append(p, 0) },
			"twice":            func(p []byte) []byte { return append(p, p...) },
			"first byte":       func(p []byte) []byte { p[0] ^= 1; return p },
			"middle bit":       func(p []byte) []byte { p[len(p)/2] ^= 4; return p },
			"last bit":         func(p []byte) []byte { p[len(p)-1] ^= 128; return p },
			"zeroed block":     func(p []byte) []byte { clear(p[len(p)/3 : len(p)/3+512]); return p },
		}
		for kind, mutate := range mutations {
			got, err := decode(mutate(bytes.Clone(stored)), c.o, w, c.ids)
			if !errors.Is(err, backup.ErrCorrupt) {
				t.Errorf("%s, %s: got %d bytes and error %v, want ErrCorrupt", name, kind, len(got), err)
			}
		}
	}
}

// TestDecode_OtherPlain: the stored bytes are those of the manifest, and yield another
// snapshot than the manifest promises.
func TestDecode_OtherPlain(t *testing.T) {
	for name, c := range options(t) {
		plain := sample(200 << 10)
		stored, w := encode(t, plain, c.o)
		for lie, change := range map[string]func(*backup.Blob){
			"sum":     func(b *backup.Blob) { b.SHA256[0] ^= 1 },
			"longer":  func(b *backup.Blob) { b.Bytes++ },
			"shorter": func(b *backup.Blob) { b.Bytes-- },
		} {
			w := w
			change(&w.Plain)
			if _, err := decode(stored, c.o, w, c.ids); !errors.Is(err, backup.ErrCorrupt) {
				t.Errorf("%s, %s: got error %v, want ErrCorrupt", name, lie, err)
			}
		}
	}
}

func TestDecode_SourceErrorIsNotCorruption(t *testing.T) {
	boom := errors.New("connection reset")
	for name, c := range options(t) {
		stored, w := encode(t, sample(200<<10), c.o)
		src := io.MultiReader(bytes.NewReader(stored[:len(stored)/2]), iotest.ErrReader(boom))
		d, err := codec.NewDecoder(src, c.o.Encoding(), w, c.ids)
		if err == nil {
			_, err = io.Copy(io.Discard, d)
			d.Close()
		}
		if !errors.Is(err, boom) || errors.Is(err, backup.ErrCorrupt) {
			t.Errorf("%s: got %v, want the source's error and not ErrCorrupt", name, err)
		}
	}
}

func TestDecode_TooMuch(t *testing.T) {
	o := codec.Options{Compress: codec.Zstd}
	stored, w := encode(t, make([]byte, 64<<20), o) // a small object that decodes to much
	w.Plain.Bytes = 1 << 20
	got, err := decode(stored, o, w, nil)
	if !errors.Is(err, backup.ErrCorrupt) || len(got) > 10<<20 {
		t.Errorf("got %d bytes and %v, want ErrCorrupt early", len(got), err)
	}
}

func TestDecode_NoIdentity(t *testing.T) {
	id, _ := identity(t)
	other, file := identity(t)
	_ = other
	o := codec.Options{Compress: codec.Zstd, Recipients: mustRecipients(t, id.Recipient().String())}
	stored, w := encode(t, sample(1000), o)
	if _, err := decode(stored, o, w, nil); !errors.Is(err, codec.ErrNoIdentity) {
		t.Errorf("without identity: %v", err)
	}
	ids, err := codec.ReadIdentities([]string{file})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := decode(stored, o, w, ids); !errors.Is(err, codec.ErrNoIdentity) || errors.Is(err, backup.ErrCorrupt) {
		t.Errorf("with the wrong identity: %v", err)
	}
}

func TestEncoder_SourceError(t *testing.T) {
	boom := errors.New("stream lost")
	for name, c := range options(t) {
		e, err := codec.NewEncoder(io.MultiReader(bytes.NewReader(sample(1<<20)), iotest.ErrReader(boom)), c.o)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, e); !errors.Is(err, boom) {
			t.Errorf("%s: got %v, want the source's error", name, err)
		}
		e.Close()
	}
}

func TestEncoder_CloseEarly(t *testing.T) {
	for name, c := range options(t) {
		e, err := codec.NewEncoder(bytes.NewReader(sample(4<<20)), c.o)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(e, make([]byte, 16)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		e.Close() // must return: the goroutine may not wait for a reader for ever
	}
}

func TestParseRecipients(t *testing.T) {
	id, _ := identity(t)
	hybrid, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	good := id.Recipient().String()
	typo := good[:len(good)-1] + "x"
	if typo == good {
		typo = good[:len(good)-1] + "q"
	}
	write := func(s string) string {
		name := filepath.Join(t.TempDir(), "recipients.txt")
		if err := os.WriteFile(name, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	for name, c := range map[string]struct {
		keys, files []string
		want        int
		err         string
	}{
		"nothing":        {},
		"one":            {keys: []string{good}, want: 1},
		"file":           {files: []string{write("# ops\n" + good + "\n\n")}, want: 1},
		"several":        {keys: []string{good}, files: []string{write(good)}, want: 2},
		"typo":           {keys: []string{typo}, err: "not an age public key"},
		"empty string":   {keys: []string{""}, err: "not an age public key"},
		"empty file":     {files: []string{write("# none\n")}, err: "holds no recipient"},
		"typo in file":   {files: []string{write("#\n\nage1nonsense\n")}, err: "recipients.txt:3"},
		"missing file":   {files: []string{"/nonexistent"}, err: "read recipients file"},
		"a secret":       {keys: []string{id.String()}, err: "secret key"},
		"pq and classic": {keys: []string{good, hybrid.Recipient().String()}, err: "cannot be used together"},
	} {
		r, err := codec.ParseRecipients(c.keys, c.files)
		if c.err == "" && (err != nil || r.Len() != c.want) {
			t.Errorf("%s: %d recipients, %v", name, r.Len(), err)
		}
		if c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: got %v, want %q", name, err, c.err)
		}
		if err != nil && strings.Contains(err.Error(), id.String()) {
			t.Errorf("%s: the error shows a secret key", name)
		}
	}
}

// A secret key that stands where the name of a file belongs is not repeated.
func TestSecretKeyAsFile(t *testing.T) {
	const key = "AGE-SECRET-KEY-1QQQQ"
	_, err1 := codec.ReadIdentities([]string{key})
	_, err2 := codec.ParseRecipients(nil, []string{key})
	_, err3 := codec.ParseRecipients([]string{strings.ToLower(key)}, nil)
	for _, err := range []error{err1, err2, err3} {
		if err == nil || strings.Contains(strings.ToUpper(err.Error()), "QQQQ") {
			t.Errorf("got %v", err)
		}
	}
}

// Damage can also make the plain form longer. The sum of the stored bytes says so all the
// same: who reads the error learns whether the object was changed.
func TestDecoder_Longer(t *testing.T) {
	encode := func(plain string) ([]byte, codec.Want) {
		e, err := codec.NewEncoder(strings.NewReader(plain), codec.Options{Compress: codec.Zstd})
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		raw, err := io.ReadAll(e)
		if err != nil {
			t.Fatal(err)
		}
		_, stored := e.Sums()
		return raw, codec.Want{Plain: backup.Blob{Bytes: int64(len(plain))}, Stored: stored}
	}
	_, want := encode(strings.Repeat("a", 1000))
	longer, _ := encode(strings.Repeat("a", 100_000))
	d, err := codec.NewDecoder(bytes.NewReader(longer), backup.Encoding{Compression: "zstd"}, want, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	n, err := io.Copy(io.Discard, d)
	if !errors.Is(err, backup.ErrCorrupt) || !strings.HasPrefix(err.Error(), "stored object is ") ||
		!strings.Contains(err.Error(), "more than the 1000 plain bytes") || n > 1000 {
		t.Errorf("got %d bytes, %v", n, err)
	}
}
