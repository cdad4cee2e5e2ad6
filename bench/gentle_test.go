package bench

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// idleFor is how long the members are measured while nothing else happens.
const idleFor = 5 * time.Second

// BenchmarkGentle measures the puts and reads of every member during a backup,
// beside those during a bare "etcdctl snapshot save" in the same run. Longest
// counts: a member that stands still for a second hardly moves a p99.
//
// One is a cluster of one member, on whose cores backupd works. Its HashKV is not
// asked for, because that alone stops a member.
func BenchmarkGentle(b *testing.B) {
	b.Run("One", func(b *testing.B) { newWorldOf(b, 1).benchGentle(b, "--hash-check", "off") })
	b.Run("Three", func(b *testing.B) { newWorldOf(b, 3).benchGentle(b) })
}

func (w *world) benchGentle(b *testing.B, flags ...string) {
	// The store is a folder: a server for it would take a part of the same cores.
	w.env = append(w.env, "BACKUPD_REPO=file://"+b.TempDir())
	w.backupd(b, "init")
	source := w.backup(b, flags).Endpoint // that member is asked for the bare snapshots too
	p := startProbers(b, w.cluster)
	idle := p.during(func() { time.Sleep(idleFor) })
	var saves, backups []times
	var unasked, beside []time.Duration
	for b.Loop() {
		save := p.during(func() {
			run(b, append(w.env, "ETCDCTL_ENDPOINTS="+source), w.tools["etcdctl"], "snapshot", "save", w.dir+"/s.db")
		})
		run(b, nil, "rm", w.dir+"/s.db")
		var m *backup.Manifest
		taken := p.during(func() { m = w.backup(b, flags) })
		saves, backups = append(saves, save), append(backups, taken)
		asked := askedMembers(m)
		fmt.Printf("the snapshot is of %s, HashKV of %v\n", m.Source.Name, asked) // Logf of a benchmark is cut
		others := func(p probe) bool { return !slices.Contains(asked, p.member) }
		unasked, beside = append(unasked, taken.longest(others)), append(beside, save.longest(others))
	}
	fmt.Println(idle.table("idle"))
	save, taken := slices.Concat(saves...), slices.Concat(backups...)
	fmt.Println(save.table("etcdctl snapshot save"))
	fmt.Println(taken.table("backupd backup"))
	reportGentle(b, save, taken)
	b.ReportMetric(ms(median(unasked)), "unasked-longest-ms")
	b.ReportMetric(ms(median(beside)), "unasked-longest-save-ms")
}

// reportGentle prints the puts during a backup beside those during a bare snapshot.
func reportGentle(b *testing.B, save, taken times) {
	b.Helper()
	put := func(p probe) bool { return p.kind == "put" }
	bare, ours := save.only(put), taken.only(put)
	for _, q := range []struct {
		name string
		at   float64
	}{{"p50", 0.5}, {"p99", 0.99}, {"longest", 1}} {
		b.ReportMetric(ms(ours.quantile(q.at)), "put-"+q.name+"-ms")
		b.ReportMetric(ms(bare.quantile(q.at)), "put-"+q.name+"-save-ms")
		b.ReportMetric(ms(ours.quantile(q.at))/ms(bare.quantile(q.at)), "put-"+q.name+"-ratio")
	}
	b.ReportMetric(0, "ns/op")
}

// backup takes one backup and returns its manifest.
func (w *world) backup(b *testing.B, flags []string) *backup.Manifest {
	b.Helper()
	cmd := exec.Command(w.tools["backupd"], append([]string{"backup", "--write-out", "json", "--log-level", "error"},
		flags...)...)
	var problems strings.Builder
	cmd.Dir, cmd.Env, cmd.Stderr = w.dir, w.env, &problems
	out, err := cmd.Output()
	if err != nil {
		b.Fatalf("backupd backup: %v\n%s", err, &problems)
	}
	m := new(backup.Manifest)
	if err := json.Unmarshal(out, m); err != nil {
		b.Fatalf("manifest: %v\n%s", err, out)
	}
	return m
}

// askedMembers returns the names of the members that answered for HashKV.
func askedMembers(m *backup.Manifest) []string {
	var asked []string
	for _, h := range m.MemberHashes {
		i := slices.IndexFunc(m.Members, func(member backup.Member) bool { return member.ID == h.MemberID })
		if h.Answer != nil && i >= 0 {
			asked = append(asked, m.Members[i].Name)
		}
	}
	return asked
}
