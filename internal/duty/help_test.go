package duty_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/disk"
	"github.com/etcd-backupd/backupd/internal/duty"
	"github.com/etcd-backupd/backupd/internal/health"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/retention"
	"github.com/etcd-backupd/backupd/internal/schedule"
	"github.com/etcd-backupd/backupd/internal/spool"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

var update = flag.Bool("update", false, "write the golden files")

var errDown = errors.New("the store is down")

// place is a cluster and a store, which processes share.
type place struct {
	t     *testing.T
	etcd  *testserver.Cluster
	mem   *mem.Store
	hook  *storagetest.Hook // over mem
	trace *storagetest.Tracer
	codec codec.Options

	mu    sync.Mutex
	ahead time.Duration // of the processes' clocks
}

// newPlace returns the shared etcd of one member and an empty repository.
func newPlace(t *testing.T) *place {
	t.Helper()
	p := newEmptyPlace(t)
	if _, err := repository.Create(t.Context(), p.mem); err != nil {
		t.Fatal(err)
	}
	return p
}

// newEmptyPlace returns the shared etcd of one member and an empty store.
func newEmptyPlace(t *testing.T) *place {
	t.Helper()
	p := &place{t: t, etcd: shared.Cluster(t, 1), mem: mem.New(), codec: codec.Options{Compress: codec.Zstd}}
	p.hook = &storagetest.Hook{Store: p.mem}
	p.trace = storagetest.Trace(p.hook)
	return p
}

// process is what one process knows and does.
type process struct {
	*place
	*duty.Subject
	backup duty.Backup
	verify duty.Verify
}

// process starts one, which knows nothing yet.
func (p *place) process() *process {
	p.t.Helper()
	line, err := schedule.Parse("@hourly", time.UTC)
	if err != nil {
		p.t.Fatal(err)
	}
	policy := retention.Policy{Last: 2, MinVerified: 1}
	s := &duty.Subject{
		Key: duty.Key{Repository: "main", Cluster: "prod"}, Store: p.trace,
		Etcd:    testserver.Connect(p.t, cluster.Config{Endpoints: p.etcd.Endpoints()}),
		Address: "--repo file:///backups", Spool: spool.Folder{Dir: p.t.TempDir(), Keep: true, MinFree: disk.ReserveOf(0)},
		Removal: func(key string) string { return "rm /backups/" + key },
		Known:   duty.NewKnowledge(p.now(), ""), Log: slog.New(slog.NewTextHandler(p.t.Output(), nil)), Now: p.now,
	}
	return &process{
		place: p, Subject: s,
		backup: duty.Backup{
			Subject: s, Defragments: true, Line: line, Longest: time.Hour, MaxAge: 24 * time.Hour, Policy: policy, Tool: "test",
			Codec: func() (codec.Options, error) { return p.codec, nil },
		},
		verify: duty.Verify{Subject: s, Policy: policy},
	}
}

func (p *place) now() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Now().Round(0).Add(p.ahead)
}

// pass lets time pass on the processes' clocks.
func (p *place) pass(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ahead += d
}

// to sets the processes' clocks to a time of the day, in UTC.
func (p *place) to(t time.Duration) {
	now := p.now().UTC()
	p.pass(now.Truncate(24 * time.Hour).Add(24*time.Hour + t).Sub(now))
}

// count counts the objects whose names have a part.
func (p *place) count(part string) (n int) {
	p.t.Helper()
	for _, key := range p.keys() {
		if strings.Contains(key, part) {
			n++
		}
	}
	return n
}

// slot does a scheduled backup once.
func (p *process) slot() duty.Outcome { return p.try(schedule.Scheduled, time.Now().Round(0)) }

// try does a backup of a run that began then.
func (p *process) try(why schedule.Reason, began time.Time) duty.Outcome {
	return p.backup.Do(p.t.Context(), duty.Run{Why: why, Began: began})
}

// taken is a slot that must store a verified snapshot.
func (p *process) taken() *backup.Manifest {
	p.t.Helper()
	o := p.slot()
	if o.Result != duty.Succeeded || o.Manifest == nil || o.Err != nil || o.Snapshot != o.Manifest.ID {
		p.t.Fatalf("got %+v", o)
	}
	return o.Manifest
}

// changed is a slot that must store a verified snapshot of other data than before.
func (p *process) changed() *backup.Manifest {
	p.t.Helper()
	p.put()
	return p.taken()
}

// wants compares an outcome with what it should be.
func wants(t *testing.T, o duty.Outcome, result duty.Result, text string) {
	t.Helper()
	got := o.Reason
	if o.Err != nil {
		got = o.Err.Error()
	}
	bad := result == duty.Failed || result == duty.Suspect || result == duty.Unaccepted || result == duty.Incomplete
	stored := result == duty.Succeeded || result == duty.Unconfirmed || bad && result != duty.Failed
	if o.Result != result || (o.Err != nil) != bad ||
		!strings.Contains(got, text) || (o.Manifest != nil) != stored {
		t.Errorf("got %+v, want %s: %q", o, result, text)
	}
}

// healthy compares what an operator sees with what it should be.
func (p *process) healthy(level health.Level, problem string) {
	p.t.Helper()
	h := p.backup.Health(p.now())
	if h.Level != level || !strings.Contains(h.Problem, problem) || problem == "" && h.Problem != "" {
		p.t.Errorf("got %+v, want %s: %q", h, level, problem)
	}
}

// look looks at the repository, which must be possible.
func (p *process) look() *repository.Overview {
	p.t.Helper()
	o, err := p.Look(p.t.Context(), p.backup.Policy)
	if err != nil {
		p.t.Fatal(err)
	}
	return o
}

func (p *place) put() {
	p.t.Helper()
	if _, err := p.etcd.Client(p.t).Put(p.t.Context(), "key", "value"); err != nil {
		p.t.Fatal(err)
	}
}

// asked counts the calls of a method that the members have begun to answer.
func (p *place) asked(method string) int {
	p.t.Helper()
	sum := 0
	for _, m := range p.etcd.Members {
		sum += p.askedOf(m, method)
	}
	return sum
}

// askedOf counts those of one member.
func (p *place) askedOf(m *testserver.Member, method string) int {
	p.t.Helper()
	defer http.DefaultClient.CloseIdleConnections()
	resp, err := http.Get(m.ClientURL + "/metrics")
	if err != nil {
		p.t.Fatal(err)
	}
	raw, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		p.t.Fatal(err)
	}
	pattern := regexp.MustCompile(`(?m)^grpc_server_started_total\{grpc_method="` + method + `".*\} (\d+)$`)
	found := pattern.FindSubmatch(raw)
	if found == nil {
		return 0
	}
	n, err := strconv.Atoi(string(found[1]))
	if err != nil {
		p.t.Fatal(err)
	}
	return n
}

// streams counts how often something has asked etcd for its database.
func (p *place) streams(during func()) int {
	p.t.Helper()
	before := p.asked("Snapshot")
	during()
	return p.asked("Snapshot") - before
}

// down makes the store fail until it is called once more.
func (p *place) down() (up func()) {
	p.hook.Before = func(context.Context, storage.Op, string) error { return errDown }
	return func() { p.hook.Before = nil }
}

// refuse makes an operation on keys with a part fail.
func (p *place) refuse(op storage.Op, part string, err error) {
	p.hook.Before = func(_ context.Context, o storage.Op, key string) error {
		if o == op && strings.Contains(key, part) {
			return err
		}
		return nil
	}
}

func (p *place) read(key string) []byte {
	p.t.Helper()
	r, err := p.mem.Open(p.t.Context(), key, 0, -1)
	if err != nil {
		p.t.Fatal(err)
	}
	raw, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		p.t.Fatal(err)
	}
	return raw
}

// write puts an object in the place of the one that is there, if any.
func (p *place) write(key string, raw []byte) {
	p.t.Helper()
	p.remove(key)
	if err := p.mem.Create(p.t.Context(), key, bytes.NewReader(raw)); err != nil {
		p.t.Fatal(err)
	}
}

// unmount takes everything away until it is called once more.
func (p *place) unmount() (mount func()) {
	p.t.Helper()
	held := map[string][]byte{}
	for _, key := range p.keys() {
		held[key] = p.read(key)
	}
	away := func() {
		for _, key := range p.keys() {
			if err := p.mem.Delete(p.t.Context(), key); err != nil {
				p.t.Fatal(err)
			}
		}
	}
	away()
	return func() {
		away()
		for key, raw := range held {
			p.write(key, raw)
		}
	}
}

func (p *place) remove(keys ...string) {
	p.t.Helper()
	for _, key := range keys {
		if k, err := backup.ParseKey(key); err == nil && k.Kind == backup.KindManifest {
			removal := backup.Mark{Kind: backup.MarkRemoved, ID: k.ID, Reason: "by a test"}
			if err := repository.At(p.mem, "").Cluster(k.Cluster).Marks().Note(p.t.Context(), removal); err != nil {
				p.t.Fatal(err)
			}
		}
		if err := p.mem.Delete(p.t.Context(), key); err != nil {
			p.t.Fatal(err)
		}
	}
}

// damage changes a byte of an object until it is called once more.
func (p *place) damage(key string) (mend func()) {
	p.t.Helper()
	whole := p.read(key)
	bad := bytes.Clone(whole)
	bad[len(bad)/2] ^= 1
	p.write(key, bad)
	return func() { p.t.Helper(); p.write(key, whole) }
}

// create stores a snapshot that was never taken.
func (p *place) create(m backup.Manifest) *backup.Manifest {
	p.t.Helper()
	m.ID = backup.NewDataName(m.StartedAt).WithRevision(m.Revision)
	raw, err := m.Marshal()
	if err != nil {
		p.t.Fatal(err)
	}
	p.write(m.DataKey(), make([]byte, m.Stored.Bytes))
	p.write(m.Key(), raw)
	return &m
}

// keys lists what the store holds.
func (p *place) keys() []string {
	p.t.Helper()
	var out []string
	for o, err := range p.mem.List(p.t.Context(), "", "") {
		if err != nil {
			p.t.Fatal(err)
		}
		out = append(out, o.Key)
	}
	return out
}

// traced returns what was asked of the store meanwhile.
func (p *place) traced(during func()) []string {
	before := len(p.trace.Lines())
	during()
	return p.trace.Lines()[before:]
}

func count(lines []string, prefix string) int {
	n := 0
	for _, line := range lines {
		if strings.HasPrefix(line, prefix) {
			n++
		}
	}
	return n
}

var namePattern = regexp.MustCompile(`\d{8}T\d{6}Z(-r\d+)?-[a-z2-7]{6}(\.t\d+-[a-z2-7]{6}\.\d+)?`)

var streamPattern = regexp.MustCompile(`streams/\S+`)

// golden compares lines with a file in testdata. Names in them are replaced by
// those that names gives.
func golden(t *testing.T, name string, lines []string, names map[string]string) {
	t.Helper()
	text := streamPattern.ReplaceAllString(strings.Join(lines, "\n")+"\n", "streams/STREAM.json")
	got := namePattern.ReplaceAllStringFunc(text, func(s string) string {
		for part, called := range names {
			if strings.HasPrefix(s, part[:len("20060102T150405Z")]) && strings.Contains(s, part[len(part)-6:]) {
				return called
			}
		}
		return s
	})
	storagetest.Golden(t, name, got, *update)
}
