package intake

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"compress/lzw"
	"compress/zlib"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/kballard/go-shellquote"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/disk"
	"github.com/etcd-backupd/backupd/internal/etcddb"
)

// form is how a file is packed.
type form string

const (
	plain   form = "plain"
	gzipped form = "gzip"
	zstd    form = "zstd"
	zipped  form = "zip"
	zlibbed form = "zlib"
	// lzwed is what etcd-backup-restore makes with the suffix .Z, which has no magic number. It is
	// not what the program compress makes.
	lzwed form = "lzw"
)

// lzwBits is the size of the literals in lzwed.
const lzwBits = 8

// formOf returns the form of a file by its first bytes. Only lzwed is known by the name.
func formOf(name string, head []byte) form {
	switch {
	case bytes.HasPrefix(head, []byte("\x1f\x8b")):
		return gzipped
	case bytes.HasPrefix(head, []byte("\x28\xb5\x2f\xfd")):
		return zstd
	case bytes.HasPrefix(head, []byte("PK\x03\x04")), bytes.HasPrefix(head, []byte("PK\x05\x06")):
		return zipped
	case isZlib(head):
		return zlibbed
	}
	if m := ofBackupRestore.FindStringSubmatch(name); m != nil && m[5] == ".Z" {
		return lzwed
	}
	return plain
}

// isZlib reports whether a file begins as one with a window of 32 KiB does. A database begins
// with zeros.
func isZlib(head []byte) bool {
	return len(head) > 2 && head[0] == 0x78 && head[1]&0x20 == 0 && (uint(head[0])<<8+uint(head[1]))%31 == 0
}

// packed is an open file and the plain bytes in it.
type packed struct {
	file *os.File
	form form
	// plain yields io.EOF only if the checks of the form agree. It must be closed.
	plain io.ReadCloser
	// need is how many plain bytes there will be, as far as the form tells that; else 0.
	need int64
}

// open opens a file that must be a regular one, and begins to unpack it.
func open(ctx context.Context, path string) (_ *packed, err error) {
	if _, err := modifiedAt(path); err != nil {
		return nil, err
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, err
	}
	f, err := disk.OpenRegular(real, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	p := &packed{file: f}
	err = p.begin(ctx, path)
	// What a server has open changes while it is copied. Where there are no locks none can be open.
	if err == nil && p.form == plain && errors.Is(disk.TryLock(f, disk.Shared), disk.ErrInUse) {
		err = backup.WithHint(&backup.RefusedError{Reason: "it is in use by another process, perhaps a running etcd: " +
			"a copy would hold pages of different moments"}, "take a snapshot of that etcd: backupd backup")
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return p, nil
}

func (p *packed) begin(ctx context.Context, path string) error {
	head := make([]byte, 16)
	n, err := p.file.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return fmt.Errorf("read it: %w", err)
	}
	info, err := p.file.Stat()
	if err != nil {
		return err
	}
	p.form = formOf(filepath.Base(path), head[:n])
	src := &source{ctx: ctx, r: p.file}
	switch p.form {
	case plain:
		if err := unknownForm(path); err != nil {
			return err
		}
		if _, err := etcddb.ReadFrame(path); err != nil { // before it is copied: it may be of any size
			return backup.WithHint(fmt.Errorf("it is no etcd database, or damaged: %w", err),
				"copy it again and compare the lengths")
		}
		p.plain, p.need = io.NopCloser(src), info.Size()
	case gzipped:
		p.plain, err = gzip.NewReader(src)
	case zstd:
		p.plain, err = codec.NewZstdReader(src)
	case zlibbed:
		p.plain, err = zlib.NewReader(src)
	case lzwed:
		p.plain = lzw.NewReader(src, lzw.LSB, lzwBits)
	case zipped:
		err = p.beginZip(src, info.Size())
	}
	return p.explain(err)
}

// beginZip opens the only file in an archive.
func (p *packed) beginZip(src *source, size int64) error {
	archive, err := zip.NewReader(src, size)
	if err != nil {
		return err
	}
	var only *zip.File
	for _, f := range archive.File {
		switch {
		case f.FileInfo().IsDir():
		case only != nil:
			return &backup.RefusedError{Reason: fmt.Sprintf(
				"the zip archive holds more than one file, %q and %q: unpack it, and name the snapshot", only.Name, f.Name)}
		default:
			only = f
		}
	}
	if only == nil {
		return backup.Corruptf("the zip archive holds no file")
	}
	// No damage, so nobody need search for it.
	if encrypted := only.Flags&1 != 0; encrypted || only.Method != zip.Store && only.Method != zip.Deflate {
		reason := fmt.Sprintf("the zip archive is packed by method %d, which is not known here", only.Method)
		if encrypted {
			reason = "the zip archive is encrypted"
		}
		return &backup.RefusedError{Reason: reason + ": unpack it, and import the result"}
	}
	p.need = int64(min(only.UncompressedSize64, 1<<62))
	p.plain, err = only.Open()
	return err
}

// unknownForm refuses a file that is no database and in no form that can be unpacked here.
func unknownForm(path string) error {
	f, err := codec.FormOf(path, shellquote.Join(path))
	if f == nil || err != nil {
		return err
	}
	err = backup.Corruptf("it is %s, and no etcd database", f.Name)
	if f.Unpack == "" {
		return err
	}
	return backup.WithHint(err, "unpack it, and import the result: %s > %s", f.Unpack,
		shellquote.Join(strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))))
}

// Read yields the plain bytes.
func (p *packed) Read(b []byte) (int, error) {
	n, err := p.plain.Read(b)
	if err == io.EOF {
		return n, io.EOF
	}
	return n, p.explain(err)
}

// explain makes damage of what a decoder says. What the file itself says stays.
func (p *packed) explain(err error) error {
	var path *os.PathError
	switch {
	case err == nil, p.form == plain, errors.As(err, &path), errors.Is(err, errStopped),
		errors.As(err, new(*backup.RefusedError)), errors.Is(err, backup.ErrCorrupt):
		return err
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return backup.Corruptf("its %s data has no end: it was cut", p.form)
	}
	return backup.Corruptf("its %s data is damaged: %w", p.form, err)
}

// Close closes both.
func (p *packed) Close() error { return errors.Join(p.plain.Close(), p.file.Close()) }

// errStopped says that the work was ended from outside, which is no fault of the file.
var errStopped = errors.New("stopped")

// source ends with its context.
type source struct {
	ctx context.Context
	r   *os.File
}

func (s *source) stopped() error {
	if s.ctx.Err() == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", errStopped, context.Cause(s.ctx))
}

func (s *source) Read(b []byte) (int, error) {
	if err := s.stopped(); err != nil {
		return 0, err
	}
	return s.r.Read(b)
}

func (s *source) ReadAt(b []byte, off int64) (int, error) {
	if err := s.stopped(); err != nil {
		return 0, err
	}
	return s.r.ReadAt(b, off)
}
