package etcddb

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/etcddb/buckets"
)

// smallDatabase makes a database of small pages, so that few bytes hold all
// kinds of them: branches, overflow, inline buckets and, if wanted, a free list.
func smallDatabase(t testing.TB, storeFreelist bool) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "db")
	db, err := bolt.Open(path, 0o600, &bolt.Options{PageSize: 1024, NoFreelistSync: !storeFreelist, NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	const keys = 18
	for round := range int64(2) {
		err := db.Update(func(tx *bolt.Tx) error {
			for _, name := range allBuckets {
				if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
					return err
				}
			}
			for i := range int64(keys) {
				kv := &mvccpb.KeyValue{
					Key: fmt.Appendf(nil, "key-%d", i), CreateRevision: 2 + i, Version: round + 1,
					ModRevision: 2 + round*keys + i, Value: bytes.Repeat([]byte{'v'}, int(i*i*i/4)),
				}
				v, err := proto.Marshal(kv)
				if err != nil {
					return err
				}
				if err := tx.Bucket([]byte(keyBucket)).Put(appendRevision(nil, kv.ModRevision), v); err != nil {
					return err
				}
			}
			for i := range byte(60) { // a second tree of pages
				if err := tx.Bucket([]byte("lease")).Put([]byte{0, 0, 0, 0, 0, 0, 0, i},
					[]byte{8, i, 16, byte(round)}); err != nil {
					return err
				}
			}
			return tx.Bucket([]byte(buckets.Meta)).Put([]byte(buckets.Term), []byte("\x00\x00\x00\x00\x00\x00\x00\x07"))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	m, err := readMeta(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	return data[:m.Pages*uint64(m.PageBytes)]
}

// unguarded is the guard of memory that no disk can take away.
func unguarded(read func() error) error { return read() }

// inspectBytes inspects a database in memory, in this process.
func inspectBytes(data []byte) (*Facts, error) {
	m, err := readMeta(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, err
	}
	if m.Pages > uint64(len(data))/uint64(m.PageBytes) {
		return nil, backup.Corruptf("truncated")
	}
	return inspect(&image{m, &mapped{data, uint64(m.PageBytes)}, unguarded})
}

// FuzzInspect damages a database in two places. Inspecting it must neither
// panic nor run for ever.
func FuzzInspect(f *testing.F) {
	bases := [][]byte{smallDatabase(f, false), smallDatabase(f, true)}
	f.Add(uint(0), uint16(0), uint64(0), uint16(0), uint64(0))
	f.Add(uint(0), uint16(2*1024+8), uint64(0x10ffff), uint16(3*1024+12), uint64(1))
	f.Add(uint(1), uint16(5*1024), uint64(1)<<40, uint16(5*1024+16), ^uint64(0))
	f.Fuzz(func(t *testing.T, base uint, at1 uint16, smash1 uint64, at2 uint16, smash2 uint64) {
		data := bytes.Clone(bases[base%2])
		smash(data, int(at1), smash1)
		smash(data, int(at2), smash2)
		if _, err := inspectBytes(data); err != nil && !errors.Is(err, backup.ErrCorrupt) {
			t.Fatalf("error does not say corrupt: %v", err)
		}
	})
}

func smash(data []byte, at int, with uint64) {
	for i := range min(8, len(data)-at) {
		data[at+i] ^= byte(with >> (8 * i))
	}
}

// TestInspect_EveryByte damages each byte of a small database once. What is not
// found as a defect must at least show in the status hash, for then it changed
// a key or a value to another good one.
func TestInspect_EveryByte(t *testing.T) {
	for _, stored := range []bool{false, true} {
		t.Run(fmt.Sprintf("Freelist=%v", stored), func(t *testing.T) {
			data := smallDatabase(t, stored)
			want, err := inspectBytes(data)
			if err != nil {
				t.Fatal(err)
			}
			rng := rand.New(rand.NewPCG(3, 4))
			found, harmless, hashed := 0, 0, 0
			for i := range data {
				old := data[i]
				data[i] ^= byte(1 + rng.UintN(255))
				got, err := inspectBytes(data)
				switch {
				case errors.Is(err, backup.ErrCorrupt):
					found++
				case err != nil:
					t.Fatalf("byte %d: %v", i, err)
				case reflect.DeepEqual(got, want):
					harmless++
				case got.StatusHash != want.StatusHash:
					hashed++
				default:
					t.Fatalf("byte %d: %d instead of %d changed the facts and not the status hash:\n%+v\n%+v", i,
						data[i], old, got,
						want)
				}
				data[i] = old
			}
			t.Logf("%d bytes: %d found, %d changed content, %d harmless", len(data), found, hashed, harmless)
			if found == 0 || hashed == 0 || harmless == 0 {
				t.Error("one kind of outcome never happened")
			}
		})
	}
}

// TestInspect_BrokenPages makes defects that a walk must look for on purpose.
func TestInspect_BrokenPages(t *testing.T) {
	order := binary.NativeEndian
	for _, c := range []struct {
		name, want string
		damage     func(t *testing.T, im *image)
	}{
		{"SharedTree", "in use twice", func(t *testing.T, im *image) {
			root := findPage(t, im, im.Root)
			var roots [][]byte
			for i := range root.count {
				if e := root.element(i); order.Uint64(e.value) != 0 {
					roots = append(roots, e.value)
				}
			}
			copy(roots[1][:8], roots[0])
		}},
		{"ChildIsParent", "page ", func(t *testing.T, im *image) {
			p := findFlags(t, im, branchPage)
			order.PutUint64(p.body[pageHeaderBytes+8:], p.id)
		}},
		{"EmptyBranch", "branch without elements", func(t *testing.T, im *image) {
			order.PutUint16(findFlags(t, im, branchPage).body[10:], 0)
		}},
		{"ChildOutside", "outside of the file", func(t *testing.T, im *image) {
			order.PutUint64(findFlags(t, im, branchPage).body[pageHeaderBytes+8:], im.Pages)
		}},
		{"RootIsInline", "inline page", func(t *testing.T, im *image) {
			root := findPage(t, im, im.Root)
			e := root.element(0)
			order.PutUint16(e.value[bucketHeaderBytes+8:], branchPage)
		}},
		{"KeyOrder", "is not greater than the one before", func(t *testing.T, im *image) {
			p := leaseLeaf(t, im, 0)
			p.element(1).key[0] = 0xff
		}},
		{"KeyBelowParent", "is less than its parent's", func(t *testing.T, im *image) {
			p := leaseLeaf(t, im, 1)
			p.element(0).key[7] = 0
		}},
		{"KeyAboveNext", "is not less than the next page's", func(t *testing.T, im *image) {
			p := leaseLeaf(t, im, 0)
			p.element(p.count - 1).key[0] = 0xff
		}},
		{"ElementMoved", "expected to begin", func(t *testing.T, im *image) {
			p := leaseLeaf(t, im, 0)
			p.body[pageHeaderBytes+4]--
		}},
		{"FreeListShort", "neither in use nor in the free list", func(t *testing.T, im *image) {
			p := findFlags(t, im, freelistPage)
			order.PutUint16(p.body[10:], uint16(p.count-1))
		}},
		{"FreeListTwice", "listed twice", func(t *testing.T, im *image) {
			p := findFlags(t, im, freelistPage)
			copy(p.body[pageHeaderBytes+8:][:8], p.body[pageHeaderBytes:])
		}},
		{"FreeListInUse", "is in use", func(t *testing.T, im *image) {
			order.PutUint64(findFlags(t, im, freelistPage).body[pageHeaderBytes:], im.Root)
		}},
		{"FreeListTooLong", "do not fit", func(t *testing.T, im *image) {
			p := findFlags(t, im, freelistPage)
			order.PutUint16(p.body[10:], 0xFFFF)
			order.PutUint64(p.body[pageHeaderBytes:], 1<<61)
		}},
		{"FreeListGone", "free list: page", func(t *testing.T, im *image) {
			order.PutUint16(findFlags(t, im, freelistPage).body[8:], leafPage)
		}},
		{
			"MetaHeader", "should be a meta page",
			func(_ *testing.T, im *image) { bytesOf(im)[im.PageBytes+8] = leafPage },
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			im := openBytes(t, smallDatabase(t, true))
			c.damage(t, im)
			if _, err := inspect(im); !errors.Is(err, backup.ErrCorrupt) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want ErrCorrupt and %q", err, c.want)
			}
		})
	}
}

// TestInspect_OverflowTooLong moves a page to the end of the file, where a free
// page follows it, and claims that too.
func TestInspect_OverflowTooLong(t *testing.T) {
	data := smallDatabase(t, false)
	im := openBytes(t, append(data, make([]byte, 2*1024)...))
	parent := findFlags(t, im, branchPage)
	moved := findPage(t, im, parent.element(0).child)
	id := im.Pages
	im.Pages += 2
	all := bytesOf(im)
	copy(all[id*1024:], moved.body[:1024])
	binary.NativeEndian.PutUint64(all[id*1024:], id)
	binary.NativeEndian.PutUint64(parent.body[pageHeaderBytes+8:], id)
	if _, err := inspect(im); err != nil {
		t.Fatal(err)
	}
	all[id*1024+12] = 1
	if _, err := inspect(im); !errors.Is(err, backup.ErrCorrupt) || !strings.Contains(err.Error(), "bytes of content") {
		t.Errorf("error %v, want ErrCorrupt", err)
	}
}

func openBytes(t *testing.T, data []byte) *image {
	t.Helper()
	m, err := readMeta(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	return &image{m, &mapped{data, uint64(m.PageBytes)}, unguarded}
}

// bytesOf returns all bytes of an image from [openBytes], for a test to damage.
func bytesOf(im *image) []byte { return im.source.(*mapped).data }

// pageReader is a source that is not mapped: it returns a copy of what it is asked
// for, and fails at one page.
type pageReader struct {
	mapped
	fails uint64
}

var errPageReader = errors.New("connection reset")

func (r *pageReader) read(id, n uint64) ([]byte, error) {
	if id == r.fails {
		return nil, errPageReader
	}
	b, err := r.mapped.read(id, n)
	return bytes.Clone(b), err
}

// TestInspect_AnySource: pages need not come from a mapped file.
func TestInspect_AnySource(t *testing.T) {
	for _, freelist := range []bool{false, true} {
		data := smallDatabase(t, freelist)
		want, err := inspectBytes(data)
		if err != nil {
			t.Fatal(err)
		}
		im := openBytes(t, data)
		source := &pageReader{*im.source.(*mapped), im.Pages}
		im.source, im.guard = source, nil
		got, err := inspect(im)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
		for _, id := range []uint64{0, 1, im.Root} {
			source.fails = id
			if _, err := inspect(im); !errors.Is(err, errPageReader) || errors.Is(err, backup.ErrCorrupt) {
				t.Errorf("page %d cannot be read: got %v", id, err)
			}
		}
	}
}

func findPage(t *testing.T, im *image, id uint64) page {
	t.Helper()
	p, err := im.page(id)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// leaseLeaf returns the n-th page below the root of the lease bucket.
func leaseLeaf(t *testing.T, im *image, n int) page {
	t.Helper()
	all, err := newWalker(im, ascending).buckets()
	if err != nil {
		t.Fatal(err)
	}
	b, err := findBucket(all, "lease")
	if err != nil {
		t.Fatal(err)
	}
	root := findPage(t, im, b.root)
	if root.flags != branchPage {
		t.Fatal("the lease bucket fits in one page")
	}
	return findPage(t, im, root.element(n).child)
}

// findFlags returns a page of the given kind that is in use.
func findFlags(t *testing.T, im *image, flags uint16) page {
	t.Helper()
	if flags == freelistPage {
		return findPage(t, im, im.Freelist)
	}
	all, err := newWalker(im, ascending).buckets()
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range all {
		if b.root != 0 {
			if p := findPage(t, im, b.root); p.flags == flags {
				return p
			}
		}
	}
	t.Fatalf("no page with flags %#x", flags)
	return page{}
}

// TestWithImage_FileCutMeanwhile maps a file and then takes the pages away.
func TestWithImage_FileCutMeanwhile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	if err := os.WriteFile(path, smallDatabase(t, false), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close() // only read from
	err = withImage(file, func(im *image) error {
		if err := os.Truncate(path, 4096); err != nil {
			return err
		}
		_, err := inspect(im)
		return err
	})
	if !errors.Is(err, backup.ErrCorrupt) {
		t.Fatalf("inspecting a file that was cut meanwhile: %v", err)
	}
	t.Log(err)
}
