package codec_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"filippo.io/age/armor"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/codec"
)

// TestFormOf: what real tools make, and what this program stores, is recognised.
func TestFormOf(t *testing.T) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	to, err := codec.ParseRecipients([]string{id.Recipient().String()}, nil)
	if err != nil {
		t.Fatal(err)
	}
	stored := func(o codec.Options) string {
		e, err := codec.NewEncoder(strings.NewReader("database"), o)
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		raw, err := io.ReadAll(e)
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	var gz, armored bytes.Buffer
	w := gzip.NewWriter(&gz)
	_, err1 := w.Write([]byte("database"))
	a := armor.NewWriter(&armored)
	_, err2 := a.Write([]byte(stored(codec.Options{Recipients: to})))
	if err := errors.Join(err1, err2, w.Close(), a.Close()); err != nil {
		t.Fatal(err)
	}
	tar := make([]byte, 1024)
	copy(tar[257:], "ustar\x0000")
	for _, tt := range []struct {
		file, content, name, unpack string
		stored                      bool
	}{
		{"a.gz", gz.String(), "compressed by gzip", "gzip -dc 'F'", false},
		{"a.zst", stored(codec.Options{Compress: codec.Zstd}), "compressed by zstd", "zstd -dc 'F'", true},
		{"a.age", stored(codec.Options{Recipients: to}), "encrypted by age", "age -d -i IDENTITY 'F'", true},
		{"a.zst.age", stored(codec.Options{Compress: codec.Zstd, Recipients: to}), "encrypted by age",
			"age -d -i IDENTITY 'F' | zstd -dc", true},
		{"b.age", armored.String(), "encrypted by age", "age -d -i IDENTITY 'F'", true},
		{"a.xz", "\xfd7zXZ\x00 and more", "compressed by xz", "xz -dc 'F'", false},
		{"a.bz2", "BZh91AY", "compressed by bzip2", "bzip2 -dc 'F'", false},
		{"a.tar", string(tar), "a tar archive", "tar -xOf 'F'", false},
		{"empty", "", "empty", "", false},
		{"page", "<Error><Code>NoSuchKey</Code></Error>\n", "a text", "", false},
		{"database", string(make([]byte, 4096)), "", "", false},
		{"short", "\x00", "", "", false},
	} {
		path := filepath.Join(t.TempDir(), tt.file)
		if err := os.WriteFile(path, []byte(tt.content), 0o600); err != nil {
			t.Fatal(err)
		}
		form, err := codec.FormOf(path, "'F'")
		if err != nil || (form == nil) != (tt.name == "") {
			t.Errorf("%s: got %+v, %v", tt.file, form, err)
			continue
		}
		if form != nil && (*form != codec.Form{Name: tt.name, Unpack: tt.unpack} || form.Stored() != tt.stored) {
			t.Errorf("%s: got %+v", tt.file, form)
		}
	}
	if _, err := codec.FormOf(filepath.Join(t.TempDir(), "none"), ""); !errors.Is(err, fs.ErrNotExist) ||
		errors.Is(err, backup.ErrCorrupt) {
		t.Errorf("got %v", err)
	}
}
