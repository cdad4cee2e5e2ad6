package confirm_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/confirm"
	"github.com/etcd-backupd/backupd/internal/restore"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

func TestMain(m *testing.M) {
	testserver.RunChild()
	code := m.Run()
	for _, dir := range made.dirs {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// made are the snapshots of real servers that several tests restore.
var made struct {
	mu   sync.Mutex
	of   map[string]string
	dirs []string
}

// snapshotOf returns a snapshot of a filled cluster of one version, with leases, tombstones
// and a compaction. Others have the same revision and one other value, or come later, or are
// compacted at the head, where a tombstone is.
func snapshotOf(t testing.TB, version, kind string) string {
	t.Helper()
	made.mu.Lock()
	defer made.mu.Unlock()
	key := version + kind
	if path := made.of[key]; path != "" {
		return path
	}
	dir, err := os.MkdirTemp("", "backupd-confirm-")
	must(t, err)
	made.dirs = append(made.dirs, dir)
	client := testserver.StartCluster(t, testserver.Options{Version: version}).Client(t)
	testserver.Fill(t, client, testserver.FillOptions{Compact: true})
	_, err = client.Put(t.Context(), "kind", strings.TrimPrefix(kind, "later"))
	must(t, err)
	_, err = client.Delete(t.Context(), "fill/00000000", clientv3.WithRange("fill/00000009"))
	must(t, err)
	if kind == "later" {
		_, err = client.Put(t.Context(), "later", "")
		must(t, err)
	}
	if kind == "head" {
		_, err = client.Compact(t.Context(), revision(t, client), clientv3.WithCompactPhysical())
		must(t, err)
	}
	if made.of == nil {
		made.of = map[string]string{}
	}
	made.of[key] = download(t, client, filepath.Join(dir, "snapshot.db"))
	return made.of[key]
}

func download(t testing.TB, client *clientv3.Client, path string) string {
	t.Helper()
	stream, err := client.Snapshot(t.Context())
	must(t, err)
	file, err := os.Create(path)
	must(t, err)
	_, err = io.Copy(file, stream)
	must(t, err)
	must(t, file.Close())
	must(t, stream.Close())
	return path
}

// ground is where the members of one plan are restored and started.
type ground struct {
	testing.TB
	dir     string
	members []testserver.RestoredMember
	initial string
}

func newGround(t testing.TB, size int) *ground {
	g := &ground{TB: t, dir: t.TempDir()}
	var parts []string
	for i := range size {
		m := testserver.RestoredMember{
			Name: fmt.Sprint("m", i+1), PeerURL: testserver.FreeURL(t), ClientURL: testserver.FreeURL(t),
		}
		m.DataDir = filepath.Join(g.dir, m.Name)
		g.members, parts = append(g.members, m), append(parts, m.Name+"="+m.PeerURL)
	}
	g.initial = strings.Join(parts, ",")
	return g
}

// restore restores the named members from a snapshot, or all if none is named, and returns
// the plan as somebody reads it who has its file.
func (g *ground) restore(snapshot string, r restore.Request, names ...string) *restore.Plan {
	g.Helper()
	r.InitialCluster = g.initial
	src, err := restore.FromFile(g.Context(), snapshot, restore.RequireHash, nil)
	must(g, err)
	p, err := restore.NewPlan(src.About(), r)
	must(g, err)
	if r.Token == "" { // the file of a plan has a token of its own
		must(g, p.Seal(restore.Stored{}, nil, time.Now()))
		raw, err := p.Marshal()
		must(g, err)
		p, err = restore.ParsePlan(raw)
		must(g, err)
	}
	for _, m := range g.members {
		if len(names) > 0 && !slices.Contains(names, m.Name) {
			continue
		}
		site := restore.Site{Name: m.Name, DataDir: m.DataDir, WALDir: m.WALDir, AllowRunning: true}
		work, err := site.Check(g.Context(), p)
		must(g, err)
		must(g, work.Execute(g.Context(), src, restore.Options{}))
	}
	return p
}

// check asks at the client URLs of the named members, or of all if none is named.
func (g *ground) check(p *restore.Plan, o confirm.Options, conf cluster.Config) *confirm.Report {
	g.Helper()
	if len(conf.Endpoints) == 0 {
		for _, m := range g.members {
			conf.Endpoints = append(conf.Endpoints, m.ClientURL)
		}
	}
	report, err := confirm.Run(g.Context(), testserver.Connect(g, conf), p, o)
	must(g, err)
	return report
}

// finds reports whether a finding has the section, the subject, the level, and the text in it.
func finds(r *confirm.Report, section, subject string, level backup.Level, text string) bool {
	return slices.ContainsFunc(r.Findings, func(f backup.Finding) bool {
		return f.Section == section && f.Subject == subject && f.Level == level && strings.Contains(f.Text+f.Hint, text)
	})
}

// want fails the test unless the report has that state and that finding.
func (g *ground) want(
	r *confirm.Report, state confirm.State, section, subject string, level backup.Level, text string,
) {
	g.Helper()
	if r.State != state || !finds(r, section, subject, level, text) {
		g.Errorf("%s, want %s, and of %s %s: %s %q; found", r.State, state, section, subject, level, text)
		for _, f := range r.Findings {
			g.Logf("  %s %s: %s: %s -> %s", f.Section, f.Subject, f.Level, f.Text, f.Hint)
		}
	}
}
