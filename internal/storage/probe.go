package storage

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// probePart is at least the size of the parts in which a store uploads a large
// object. The probe's large object has one byte more.
const probePart = 16 << 20

// ProbePrefix begins the folder of a probe. No cluster can have such a name, so
// no object in there is ever taken for a part of a repository.
const ProbePrefix = ".backupd-probe-"

// Probe tries whether s keeps the contract of a [Store]: it creates, reads, lists
// and deletes objects in a folder of its own at the root of s, and asks an
// [Inspector] for more. If the credentials may not delete, the objects stay, and a
// finding names them.
func Probe(ctx context.Context, s Store) []backup.Finding {
	return probeParts(ctx, s, probePart)
}

func probeParts(ctx context.Context, s Store, partBytes int64) []backup.Finding {
	p := &probe{s: s, folder: ProbePrefix + backup.RandomName(16), partBytes: partBytes}
	p.run(ctx)
	p.remove(ctx)
	return p.findings
}

// probe is one call of Probe.
type probe struct {
	s         Store
	folder    string
	partBytes int64

	created []string // keys
	listing bool     // the store lists
	report
}

func (p *probe) run(ctx context.Context) {
	small := p.folder + "/small"
	if !p.create(ctx, small) {
		return // nothing else can be tried
	}
	content := p.createAgain(ctx, small)
	p.read(ctx, written{small, content, smallSize})
	p.missing(ctx)
	p.list(ctx)
	p.large(ctx)
	if ctx.Err() == nil {
		if i, ok := ability[Inspector](p.s); ok {
			p.findings = append(p.findings, i.Inspect(ctx, p.folder)...)
		}
	}
	if ctx.Err() != nil {
		p.fail("probe", "", "the probe was stopped before its end: %v", context.Cause(ctx))
	}
}

func (p *probe) create(ctx context.Context, key string) bool {
	const step = "create"
	began := time.Now()
	if err := p.s.Create(ctx, key, newPattern(seedFirst, smallSize)); err != nil {
		p.failed(step, err, "write below the repository's prefix (s3:PutObject)")
		return false
	}
	ended := time.Now()
	p.created = append(p.created, key)
	p.ok(step, "an object of %d bytes was stored", smallSize)
	p.stat(ctx, key, began, ended)
	return true
}

// stat also compares the clocks. The object was made between began and ended.
func (p *probe) stat(ctx context.Context, key string, began, ended time.Time) {
	const step = "stat"
	obj, err := p.s.Stat(ctx, key)
	switch {
	case err != nil:
		p.failed(step, err, "read below the repository's prefix (s3:GetObject)")
		return
	case obj.Key != key || obj.Size != smallSize:
		p.fail(step, "", "asked for %s of %d bytes, got %q of %d bytes", key, smallSize, obj.Key, obj.Size)
		return
	}
	p.ok(step, "the store reports the size")
	p.clock(obj.ModTime, began, ended)
}

// createAgain returns the seed of what the object holds afterwards, as far as
// the store's answer goes.
func (p *probe) createAgain(ctx context.Context, key string) seed {
	const step = "create if absent"
	switch err := p.s.Create(ctx, key, newPattern(seedSecond, smallSize)); {
	case err == nil:
		p.fail(step, replacedTodo,
			"the store replaced an existing object: it ignores the condition that the key is absent (If-None-Match)")
		return seedSecond
	case errors.Is(err, fs.ErrExist):
		p.ok(step, "an existing object is not replaced")
	case errors.Is(err, fs.ErrPermission):
		p.warn(step, "", "the store refuses to replace an object, but does not report that it exists: %v", err)
	default:
		p.failed(step, err, "write below the repository's prefix (s3:PutObject)")
	}
	return seedFirst
}

const replacedTodo = "use a store that has conditional writes; " +
	"until then turn on the bucket's versioning, so that a replaced object can be restored"

// missing asks for an object that does not exist: the store must say so.
func (p *probe) missing(ctx context.Context) {
	const step = "missing object"
	_, err := p.s.Stat(ctx, p.folder+"/missing")
	switch {
	case errors.Is(err, fs.ErrNotExist):
		p.ok(step, "the store reports that a missing object does not exist")
	case err == nil:
		p.fail(step, "", "the store reports an object that was never created")
	case errors.Is(err, fs.ErrPermission):
		p.warn(step, "allow the credentials to list the repository's prefix (s3:ListBucket)",
			"a missing object looks the same as one that the credentials may not read: %v", err)
	default:
		p.failed(step, err, "read below the repository's prefix (s3:GetObject)")
	}
}

// remove deletes everything that was created, also when ctx has ended.
func (p *probe) remove(ctx context.Context) {
	if len(p.created) == 0 {
		return
	}
	const step = "delete"
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	var left []string
	var first error
	for _, key := range p.created {
		if err := p.s.Delete(ctx, key); err != nil {
			left = append(left, key)
			if first == nil {
				first = err
			}
		}
	}
	switch {
	case errors.Is(first, fs.ErrPermission):
		p.warn(step,
			"delete them by hand; if this machine is to remove old snapshots, allow it to delete (s3:DeleteObject)",
			"the credentials may not delete, so these objects stay: %s (%v)", strings.Join(left, ", "), first)
	case errors.Is(first, ErrLocked):
		p.warn(step, "delete them by hand when the lock ends",
			"these objects are locked by the store and stay: %s (%v)", strings.Join(left, ", "), first)
	case first != nil:
		p.fail(step, "delete them by hand", "these objects stay: %s (%v)", strings.Join(left, ", "), first)
	default:
		p.removed(ctx, step)
	}
}

// removed checks that the deleted objects are gone.
func (p *probe) removed(ctx context.Context, step string) {
	key := p.created[0]
	if err := p.s.Delete(ctx, key); err != nil {
		p.fail(step, "", "deleting an object that does not exist is an error: %v", err)
		return
	}
	_, err := readRange(ctx, p.s, key, 0, -1)
	switch {
	case err == nil:
		p.fail(step, "", "an object that was deleted can be read")
		return
	case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission): // which hides what is missing
		p.failed(step, err, "")
		return
	}
	if p.listing {
		for obj, err := range p.s.List(ctx, p.folder+"/", "") {
			if err != nil {
				p.failed(step, err, "list the repository's prefix (s3:ListBucket)")
			} else {
				p.fail(step, "", "an object that was deleted is listed: %s", obj.Key)
			}
			return
		}
	}
	p.ok(step, "all %d objects were deleted and are gone", len(p.created))
}
