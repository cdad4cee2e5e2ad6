package restore_test

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/restore"
)

// TestPlan_Elsewhere writes a plan, reads it on another host and restores there
// from another copy of the same file.
func TestPlan_Elsewhere(t *testing.T) {
	f := newest(t)
	r := restore.Request{InitialCluster: "m1=http://10.0.0.1:2380,m2=http://10.0.0.2:2380"}
	p, err := restore.NewPlan(fromFile(t, f.snapshot).About(), r)
	must(t, err)
	must(t, p.Seal(storedIn(), nil, now))
	raw, err := p.Marshal()
	must(t, err)
	read, err := restore.ParsePlan(raw)
	must(t, err)

	g := newGround(t, f, t.TempDir(), "new", false)
	req := g.request()
	w, err := req.Site.Check(t.Context(), read)
	must(t, err)
	src := fromFile(t, copyFile(t, f.snapshot, filepath.Join(t.TempDir(), "copy.db")))
	must(t, req.execute(t.Context(), w, src))
	there := walOf(t, g.wal())
	req.Site = restore.Site{Name: "m1", DataDir: filepath.Join(t.TempDir(), "here")}
	w, err = req.Site.Check(t.Context(), p)
	must(t, err)
	must(t, req.execute(t.Context(), w, fromFile(t, f.snapshot)))
	if here := walOf(t, filepath.Join(req.DataDir, "member", "wal")); here != there {
		t.Errorf("the WAL elsewhere says\n%s\nhere it says\n%s", there, here)
	}
}

// TestPlan_OtherSource refuses to restore another database than the planned
// one.
func TestPlan_OtherSource(t *testing.T) {
	f := newest(t)
	for name, change := range map[string]func(*restore.Origin){
		"Revision": func(o *restore.Origin) { o.Revision++ },
		"Bytes":    func(o *restore.Origin) { o.Bytes += 4096 },
		"SHA256":   func(o *restore.Origin) { o.SHA256[0]++ },
	} {
		t.Run(name, func(t *testing.T) {
			g := newGround(t, f, t.TempDir(), "old", false)
			src := fromFile(t, f.snapshot)
			other, req := src.About(), g.request()
			change(&other)
			p, err := restore.NewPlan(other, req.Request)
			must(t, err)
			w, err := req.Site.Check(t.Context(), p)
			must(t, err)
			before := identities(t, g.root)
			var refused *backup.RefusedError
			if err := req.execute(t.Context(), w, src); !errors.As(err, &refused) {
				t.Errorf("error %v, want a refusal", err)
			}
			same(t, "after it was refused", identities(t, g.root), before)
		})
	}
}
