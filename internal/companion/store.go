package companion

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/codec"
)

// storeTries is how often the archive is offered to a store that fails. The store retries on
// its own within each try.
const storeTries = 2

// Store stores the archive as the object key and reads it back. The error of a store that
// fails ends nothing: [Archive.Lost] says so in the manifest.
func (a *Archive) Store(ctx context.Context, to Store, key string, o codec.Options) (err error) {
	if len(a.tar) == 0 {
		return nil
	}
	for range storeTries {
		if err = a.try(ctx, to, key, o); err == nil || ctx.Err() != nil {
			return err
		}
	}
	return err
}

func (a *Archive) try(ctx context.Context, to Store, key string, o codec.Options) error {
	enc, err := codec.NewEncoder(bytes.NewReader(a.tar), o)
	if err != nil {
		return err
	}
	defer enc.Close()
	if err = to.Put(ctx, key, enc); err == nil {
		_, a.About.Stored = enc.Sums()
		err = to.ReadBack(ctx, key, a.About.Stored, func(backup.Stage, int64, int64) {})
	}
	if err != nil {
		a.About.Stored = backup.Blob{}
		to.Discard(ctx, key) // the answer of the store may have been lost
	}
	return err
}

// Lost says in the manifest that nothing was stored, and why.
func (a *Archive) Lost(err error) {
	a.About.Files, a.About.Plain, a.About.Stored = []backup.CompanionFile{}, backup.Blob{}, backup.Blob{}
	a.About.Missing = nil
	all := slices.Clone(a.About.Paths)
	for _, name := range a.About.Secrets {
		all = append(all, backup.SecretPath(name))
	}
	for _, p := range all[:min(len(all), maxMissing)] {
		a.About.Missing = append(a.About.Missing, backup.MissingCompanion{
			Path: p, Reason: backup.ReasonOf(fmt.Errorf("the store did not keep it: %w", err)),
		})
	}
}

// Content are the companion files of a stored snapshot, verified as a whole, in memory.
type Content struct {
	About *backup.Companions
	raw   [][]byte // of the files, in their order
}

// ErrNone says that a snapshot has no companion files.
var ErrNone = errors.New("it has no companion files")

// Read reads the companion files of a snapshot. Nothing of them is returned unless all is what
// the manifest says: what differs is an error that wraps [backup.ErrCorrupt].
func Read(ctx context.Context, from Store, m *backup.Manifest, ids codec.Identities) (c *Content, err error) {
	key := m.FilesKey()
	if key == "" {
		return nil, ErrNone
	}
	src, err := from.Open(ctx, key, m.Companions.Stored, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	want := codec.Want{Plain: m.Companions.Plain, Stored: m.Companions.Stored}
	if want.Plain.Bytes > maxArchive {
		return nil, backup.Corruptf("open %s: %d bytes are more than companion files can have", key, want.Plain.Bytes)
	}
	dec, err := codec.NewDecoder(src, m.Encoding, want, ids)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", key, err)
	}
	defer dec.Close()
	raw, err := io.ReadAll(dec)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	c = &Content{About: m.Companions}
	if c.raw, err = unpack(raw, m.Companions.Files); err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	return c, nil
}

// maxArchive bounds the plain archive: the files, and what tar adds to each.
const maxArchive = backup.MaxCompanionBytes + backup.MaxCompanions*(8<<10) + 4*maxNames

// unpack returns the content of the listed files, if the archive holds exactly them.
func unpack(raw []byte, listed []backup.CompanionFile) ([][]byte, error) {
	r := tar.NewReader(bytes.NewReader(raw))
	out := make([][]byte, 0, len(listed))
	for _, want := range listed {
		h, err := r.Next()
		if err == io.EOF {
			return nil, backup.Corruptf("the archive ends before %s", want.Path)
		}
		if err != nil {
			return nil, backup.Corruptf("the archive is damaged before %s: %w", want.Path, err)
		}
		content, err := one(r, h, want)
		if err != nil {
			return nil, err
		}
		out = append(out, content)
	}
	if h, err := r.Next(); err == nil {
		return nil, backup.Corruptf("the archive also holds %q, which the manifest does not list", h.Name)
	} else if err != io.EOF {
		return nil, backup.Corruptf("the end of the archive is damaged: %w", err)
	}
	return out, nil
}

// one reads one entry, which must be the one that is wanted.
func one(r io.Reader, h *tar.Header, want backup.CompanionFile) ([]byte, error) {
	kind, mode := byte(tar.TypeReg), want.Mode
	if want.Link != "" {
		kind, mode = tar.TypeSymlink, "0777"
	}
	bits, _ := strconv.ParseInt(mode, 8, 64) // the manifest was checked
	if h.Name != nameOf(want.Path) || h.Typeflag != kind || h.Size != want.Bytes || h.Linkname != want.Link ||
		h.Mode != bits {
		return nil, backup.Corruptf("the archive holds %q where the manifest lists %s", h.Name, want.Path)
	}
	raw, err := io.ReadAll(io.LimitReader(r, want.Bytes+1))
	if err != nil {
		return nil, backup.Corruptf("%s in the archive: %w", want.Path, err)
	}
	if got := backup.BlobOf(raw); want.Link == "" && got != (backup.Blob{Bytes: want.Bytes, SHA256: want.SHA256}) {
		return nil, backup.Corruptf("%s in the archive is not the file that the manifest lists", want.Path)
	}
	return raw, nil
}
