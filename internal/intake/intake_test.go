package intake_test

import (
	"archive/zip"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/disk"
	"github.com/etcd-backupd/backupd/internal/etcddb/trailer"
	"github.com/etcd-backupd/backupd/internal/intake"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/repository/acceptance"
	"github.com/etcd-backupd/backupd/internal/repository/choice"
	"github.com/etcd-backupd/backupd/internal/repository/prune"
	"github.com/etcd-backupd/backupd/internal/restore"
	"github.com/etcd-backupd/backupd/internal/retention"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

const taken = "2025-11-30T11:00:00Z" // 1764500400

// TestImport_Versions imports a file of each etcd, in the forms and under the names of the
// programs that make such files.
func TestImport_Versions(t *testing.T) {
	s, dir := mem.New(), t.TempDir()
	for _, version := range testserver.Versions(t) {
		c := testserver.StartCluster(t, testserver.Options{Version: version})
		testserver.Fill(t, c.Client(t), testserver.FillOptions{Seed: 1, Compact: true})
		file := save(t, c, name(dir, "etcd-"+version+".db"))
		last := pack(t, file, name(dir, version+"-1764500400.zip"), asZip)
		m := imported(t, importer(t, part(t, s, "v"+version)), last)
		if m.StartedAt.Format(time.RFC3339) != taken || m.ID.Time() != m.StartedAt ||
			m.Imported.TimeFrom != backup.TimeFromName || len(m.Members) != 1 || m.Members[0].Name != "m1" ||
			version != "3.4" && m.EtcdVersion != version+".0" && m.EtcdVersion != version {
			t.Errorf("%s: taken at %s, etcd %s, %+v, %+v", version, m.StartedAt, m.EtcdVersion, m.Imported, m.Members)
		}
		if version == "3.7" {
			boot(t, version, part(t, s, "v3.7"), m, c)
			forms(t, file)
		}
	}
}

// forms imports one file in each form.
func forms(t *testing.T, file string) {
	raw, err := os.ReadFile(file)
	must(t, err)
	for base, write := range map[string]func(io.Writer, []byte) error{
		"etcd-snapshot-node1-1764500400":             asIs,
		"etcd-snapshot-node2-1764500400.zip":         asZip,
		"Full-00000000-00000300-1764500400":          asIs,
		"Full-00000000-00000301-1764500400.gz":       asGzip,
		"Full-00000000-00000302-1764500400.Z":        asLZW,
		"Full-00000000-00000303-1764500400.zlib":     asZlib,
		"Full-00000000-00000304-1764500400.gz.final": asGzip,
		"20251130T110000Z-k7q2xd.db.zst":             asZstd,
		"etcd-1764500400.snapshot":                   asIs,
		"etcd-1764500400.db.gz": func(w io.Writer, raw []byte) error { // as gzip -c >> does
			return errors.Join(asGzip(w, raw[:5000]), asGzip(w, raw[5000:]))
		},
	} {
		t.Run(base, func(t *testing.T) {
			to := part(t, mem.New(), "prod")
			m := imported(t, importer(t, to), pack(t, file, name(t.TempDir(), base), write))
			if m.StartedAt.Format(time.RFC3339) != taken || m.Imported.File != base {
				t.Errorf("taken at %s, %+v", m.StartedAt, m.Imported)
			}
			in, err := snapshot.Open(t.Context(), to, m, nil, nil)
			must(t, err)
			defer in.Close()
			if got, err := io.ReadAll(in); err != nil || !bytes.Equal(got, raw) {
				t.Errorf("%d bytes are stored, %d were in the file: %v", len(got), len(raw), err)
			}
		})
	}
}

// boot restores an imported snapshot and starts a server on it.
func boot(t *testing.T, version string, in *repository.Cluster, m *backup.Manifest, source *testserver.Cluster) {
	t.Helper()
	r := testserver.RestoredMember{
		Name: "m1", PeerURL: testserver.FreeURL(t), ClientURL: testserver.FreeURL(t), DataDir: name(t.TempDir(), "m1"),
	}
	src := snapshot.NewSource(in, m, nil)
	plan, err := restore.NewPlan(src.About(), restore.Request{InitialCluster: r.Name + "=" + r.PeerURL})
	must(t, err)
	site := restore.Site{Name: r.Name, DataDir: r.DataDir}
	work, err := site.Check(t.Context(), plan)
	must(t, err)
	must(t, work.Execute(t.Context(), src, restore.Options{}))
	client := testserver.StartRestored(t, version, []testserver.RestoredMember{r}).Client(t)
	got, err := client.HashKV(t.Context(), r.ClientURL, int64(m.Revision))
	must(t, err)
	want, err := source.Client(t).HashKV(t.Context(), source.Endpoints()[0], int64(m.Revision))
	must(t, err)
	if got.Hash != want.Hash {
		t.Errorf("HashKV of the restored cluster is %d, of the source %d", got.Hash, want.Hash)
	}
}

// TestImport_Refused: what is damaged, or is no snapshot, is refused by what it is, and nothing of
// it is stored.
func TestImport_Refused(t *testing.T) {
	c, dir := testserver.StartCluster(t, testserver.Options{}), t.TempDir()
	testserver.Fill(t, c.Client(t), testserver.FillOptions{Seed: 2})
	file := save(t, c, name(dir, "good.db"))
	raw, err := os.ReadFile(file)
	must(t, err)
	gz, zst := pack(t, file, name(dir, "good.gz"), asGzip), pack(t, file, name(dir, "good.zst"), asZstd)
	cut := func(w io.Writer, raw []byte) error { return asIs(w, raw[:len(raw)/2]) }
	flip := func(at int) func(io.Writer, []byte) error {
		return func(w io.Writer, raw []byte) error {
			raw = bytes.Clone(raw)
			raw[at] ^= 0x10
			return asIs(w, raw)
		}
	}
	must(t, syscall.Mkfifo(name(dir, "pipe"), 0o600))
	refused, bare := errors.New("refused"), pack(t, file, name(dir, "db"), func(w io.Writer, raw []byte) error {
		return asIs(w, raw[:len(raw)-trailer.Bytes])
	})
	running, err := disk.OpenRegular(pack(t, bare, name(dir, "open.db"), asIs), os.O_RDWR)
	must(t, err)
	defer running.Close()
	must(t, disk.TryLock(running, disk.Exclusive)) // as a server does
	to := part(t, mem.New(), "prod")
	for path, want := range map[string]struct {
		text string
		is   error // refused: a refusal
	}{
		pack(t, gz, name(dir, "cut.gz"), cut):                          {"it was cut", backup.ErrCorrupt},
		pack(t, zst, name(dir, "cut.zst"), cut):                        {"it was cut", backup.ErrCorrupt},
		pack(t, file, name(dir, "cut.db"), cut):                        {"no etcd database, or damaged", backup.ErrCorrupt},
		pack(t, gz, name(dir, "flip.gz"), flip(3000)):                  {"", backup.ErrCorrupt},
		pack(t, zst, name(dir, "flip.zst"), flip(3000)):                {"", backup.ErrCorrupt},
		pack(t, file, name(dir, "flip.db"), flip(len(raw)/2)):          {"expected sha256", backup.ErrCorrupt},
		pack(t, file, name(dir, "sum.db"), flip(len(raw)-1)):           {"expected sha256", backup.ErrCorrupt},
		put(t, name(dir, "empty.db"), nil):                             {"it is empty", backup.ErrCorrupt},
		put(t, name(dir, "text.db"), []byte("404 page not found\n")):   {"it is a text", backup.ErrCorrupt},
		put(t, name(dir, "noise.db"), bytes.Repeat([]byte{1, 7}, 999)): {"no etcd database", backup.ErrCorrupt},
		put(t, name(dir, "a.xz"), []byte("\xfd7zXZ\x00\x00")):          {"it is compressed by xz", backup.ErrCorrupt},
		pack(t, gz, name(dir, "twice.gz"), asGzip):                     {"no etcd database", backup.ErrCorrupt},
		pack(t, file, name(dir, "two.zip"), func(w io.Writer, raw []byte) error {
			return zipOf(w, raw, "a", "b")
		}): {"more than one file", refused},
		pack(t, file, name(dir, "none.zip"), func(w io.Writer, _ []byte) error { return zipOf(w, nil) }): {
			"holds no file", backup.ErrCorrupt},
		pack(t, file, name(dir, "bzip2.zip"), zipWith(zip.FileHeader{Name: "a", Method: 12})): {"method 12", refused},
		pack(t, file, name(dir, "secret.zip"), zipWith(zip.FileHeader{Name: "a", Flags: 1})):  {"is encrypted", refused},
		name(dir, "open.db"): {"in use by another process", refused},
		name(dir, "none.db"): {"no such file", os.ErrNotExist},
		dir:                  {"it is a folder", nil},
		name(dir, "pipe"):    {"not a regular file", nil},
		bare:                 {"--skip-hash-check", backup.ErrCorrupt},
	} {
		_, err := importFile(t, importer(t, to), path)
		if err == nil || !strings.Contains(err.Error(), want.text) {
			t.Errorf("%s: %v, want %q", path, err, want.text)
		}
		if want.is == refused && !errors.As(err, new(*backup.RefusedError)) ||
			want.is != nil && want.is != refused && !errors.Is(err, want.is) {
			t.Errorf("%s: %v is not %v", path, err, want.is)
		}
	}
	if ids := listed(t, to); len(ids) > 0 {
		t.Fatalf("stored: %v", ids)
	}
	skip := importer(t, to)
	skip.SkipHash = true
	if _, err := importFile(t, skip, name(dir, "sum.db")); !errors.Is(err, backup.ErrCorrupt) {
		t.Errorf("a wrong sum with --skip-hash-check: %v", err)
	}
	m := imported(t, skip, bare)
	if len(m.Unconfirmed) != 2 || !strings.Contains(m.Unconfirmed[1], "no SHA-256") || m.Plain.Bytes != int64(len(raw)) {
		t.Errorf("without a trailer: %d bytes, %v", m.Plain.Bytes, m.Unconfirmed)
	}
	in, err := snapshot.Open(t.Context(), to, m, nil, nil)
	must(t, err)
	defer in.Close()
	out, err := os.Create(name(dir, "out.db"))
	must(t, err)
	_, err = io.Copy(out, in)
	must(t, errors.Join(err, out.Close()))
	// A backup is never hostage to its tool.
	text, err := exec.Command(testserver.Binary(t, "3.7", "etcdutl"), "snapshot", "restore", out.Name(),
		"--data-dir="+name(dir, "restored")).CombinedOutput()
	if err != nil {
		t.Errorf("etcdutl: %v\n%s", err, text)
	}
}

// TestImport_History imports files beside the backups of the same cluster: neither the backups nor
// what is chosen for a restore are disturbed by them.
func TestImport_History(t *testing.T) {
	c, dir := testserver.StartCluster(t, testserver.Options{}), t.TempDir()
	testserver.Fill(t, c.Client(t), testserver.FillOptions{Seed: 3})
	source := testserver.Connect(t, cluster.Config{Endpoints: c.Endpoints()})
	to := part(t, mem.New(), "prod")
	first := save(t, c, name(dir, "first.db"))
	write(t, c, 3)
	own1 := backUp(t, source, to)
	write(t, c, 3)
	between := save(t, c, name(dir, "between.db"))
	write(t, c, 3)
	own2 := backUp(t, source, to)
	write(t, c, 3)
	newer := save(t, c, name(dir, "newer.db"))

	// An older one fits in, and changes nothing for the others.
	m := imported(t, importer(t, to), between)
	if m.Timeline != own1.Timeline || m.ClusterID != own1.ClusterID || m.ClusterID == 0 || m.Origin != nil {
		t.Errorf("timeline %s of cluster %s, want %s of %s", m.Timeline, m.ClusterID, own1.Timeline, own1.ClusterID)
	}
	wantLatest(t, to, own2)

	// The same bytes are stored once, however they are packed, and if nothing is wrong with them.
	again := pack(t, between, name(dir, "again.gz"), asGzip)
	for _, path := range []string{between, again} {
		if done, err := importFile(t, importer(t, to), path); err != nil || !done.Present || done.Manifest.ID != m.ID {
			t.Errorf("%s again: %+v, %v", path, done, err)
		}
	}

	// A copy without its time is found out by the raft log. What is said counts.
	early := time.Now().Add(-3 * time.Hour)
	must(t, os.Chtimes(newer, early, early))
	if _, err := importFile(t, importer(t, to), newer); !errors.As(err, new(*intake.TimeError)) ||
		!strings.Contains(err.Error(), "by the raft log after snapshot "+string(own2.ID)) {
		t.Errorf("of three hours ago: %v", err)
	}
	said := intake.File{Path: newer, Taken: intake.Taken{At: time.Now().UTC(), From: backup.TimeFromFlag}}
	done, err := importer(t, to).Import(t.Context(), said)
	must(t, err)
	// One that is newer than the last backup is the latest, but never the newest verified one: whoever
	// asks whether backups go on is not deceived.
	wantLatest(t, to, done.Manifest)
	o, err := to.Look(t.Context(), 1, nil, time.Now())
	must(t, err)
	if sum := o.Summary(time.Now()); o.Newest().ID != own2.ID || sum.NewestVerified.ID != own2.ID ||
		!sum.LastVerified.Equal(own2.ID.Time()) {
		t.Errorf("the newest verified is %s, want %s", o.Newest().ID, own2.ID)
	}

	// A backup after it continues.
	write(t, c, 3)
	own3 := backUp(t, source, to)
	if own3.Timeline != own1.Timeline || own3.State() != backup.Verified {
		t.Errorf("the next backup is %s, in %s: %v %v", own3.State(), own3.Timeline, own3.Origin, own3.Unconfirmed)
	}
	wantLatest(t, to, own3)
	imported(t, importer(t, to), first)
	wantLatest(t, to, own3)
	wantKept(t, to, own1.ID, own2.ID, own3.ID)
}

// wantLatest checks that a restore of the latest takes this snapshot.
func wantLatest(t *testing.T, in *repository.Cluster, want *backup.Manifest) {
	t.Helper()
	got, err := choice.Choose(t.Context(), in, choice.Latest, choice.Allow{}, time.Now())
	if err != nil || got.ID != want.ID {
		t.Errorf("latest is %s, want %s: %v", got.ID, want.ID, err)
	}
}

// wantKept: retention decides about backups as if nothing were imported, and removes no import.
func wantKept(t *testing.T, in *repository.Cluster, own ...backup.SnapshotID) {
	t.Helper()
	o, err := in.Look(t.Context(), 2, nil, time.Now())
	must(t, err)
	plan, err := prune.NewPlan(o, retention.Policy{Last: 2, MinVerified: 2}, time.Now())
	must(t, err)
	var gone []backup.SnapshotID
	for _, d := range plan.Decisions {
		if !d.Keep {
			gone = append(gone, d.ID)
		}
	}
	// What is pinned fills the room that max-bytes gives, as docs/moving-in.md says.
	limited, err := prune.NewPlan(o, retention.Policy{Last: 9, MinVerified: 2, MaxBytes: 1}, time.Now())
	must(t, err)
	if beyond := limited.Beyond(nil); len(beyond) != 1 || beyond[0] != own[0] {
		t.Errorf("with max-bytes %v would be removed, want %s", beyond, own[0])
	}
	if len(plan.Decisions) <= len(own) || len(gone) != 1 || gone[0] != own[0] {
		t.Errorf("of %d snapshots %v would be removed, want %s", len(plan.Decisions), gone, own[0])
	}
}

// TestImport_Stranger: a file of another cluster does not get under the name of this one, unless
// somebody has accepted its cluster; and one of a cluster that was made again neither.
func TestImport_Stranger(t *testing.T) {
	ours, dir := testserver.StartCluster(t, testserver.Options{}), t.TempDir()
	testserver.Fill(t, ours.Client(t), testserver.FillOptions{Seed: 4})
	other := testserver.StartCluster(t, testserver.Options{})
	testserver.Fill(t, other.Client(t), testserver.FillOptions{Seed: 5, Prefix: "other/"})
	write(t, other, 30)
	file := save(t, other, name(dir, "other.db"))
	to := part(t, mem.New(), "prod")
	own := backUp(t, testserver.Connect(t, cluster.Config{Endpoints: ours.Endpoints()}), to)

	var stranger *intake.StrangerError
	_, err := importFile(t, importer(t, to), file)
	if !errors.As(err, &stranger) || !errors.As(err, new(*backup.RefusedError)) || len(listed(t, to)) != 1 {
		t.Fatalf("of another cluster: %v; stored: %v", err, listed(t, to))
	}
	// Of a cluster with one member that was never changed the id follows.
	list, err := other.Client(t).MemberList(t.Context())
	must(t, err)
	if uint64(stranger.ClusterID) != list.Header.ClusterId {
		t.Errorf("cluster id %s, want %x", stranger.ClusterID, list.Header.ClusterId)
	}
	must(t, acceptance.Expect(t.Context(), to, stranger.ClusterID, nil, "moved", "test"))
	m := imported(t, importer(t, to), file)
	if m.Timeline == own.Timeline || m.ClusterID != stranger.ClusterID {
		t.Errorf("timeline %s of cluster %s", m.Timeline, m.ClusterID)
	}
	wantLatest(t, to, m)

	// The repository began with an import: the backups of that cluster continue it, and another
	// cluster's are another history.
	empty := part(t, mem.New(), "prod")
	if m := imported(t, importer(t, empty), file); m.ClusterID != 0 || m.Origin != nil {
		t.Errorf("the first: cluster %s, %v", m.ClusterID, m.Origin)
	}
	next := backUp(t, testserver.Connect(t, cluster.Config{Endpoints: other.Endpoints()}), empty)
	if next.ClusterID != stranger.ClusterID || next.Origin != nil || next.State() != backup.Verified {
		t.Errorf("after an import: %s, %v", next.State(), next.Origin)
	}
	wrong := backUp(t, testserver.Connect(t, cluster.Config{Endpoints: ours.Endpoints()}), empty)
	if wrong.Origin == nil {
		t.Error("a backup of another cluster continues the import")
	}
}

// TestFind: the newest file comes first, and what cannot be imported is told by its path.
func TestFind(t *testing.T) {
	dir := t.TempDir()
	old, young := put(t, name(dir, "a-1464500400"), nil), put(t, name(dir, "b-1564500400"), nil)
	files, failed := intake.Find([]string{old, dir, young}, time.Now())
	if len(files) != 2 || files[0].Path != young || len(failed) != 1 || failed[dir] == nil {
		t.Errorf("%v, %v", files, failed)
	}
	if filepath.Base(files[1].Path) != "a-1464500400" {
		t.Errorf("%v", files)
	}
}
