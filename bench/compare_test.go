package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// BenchmarkAll compares with the script, with data that zstd -1 brings to about a tenth and to about 0.3.
func BenchmarkAll(b *testing.B) {
	for _, data := range dataSets {
		b.Run(data.name, func(b *testing.B) {
			w := newWorldWith(b, 1, data.containers)
			w.backupd(b, "init")
			b.Run("Backup", w.benchBackup)
			b.Run("Verify", w.benchVerify)
			b.Run("Restore", func(b *testing.B) { w.benchRestore(b, "s.db.zst", "zstd -d -q -c r.stored") })
			b.Run("RestoreEncrypted", w.benchEncrypted)
			for _, n := range []int{1, 2, 4} {
				b.Run(fmt.Sprintf("Scale/GOMAXPROCS=%d", n), func(b *testing.B) { w.benchScale(b, n) })
			}
		})
	}
}

// benchScale measures a backup and a restore with so many cores for our own process.
func (w *world) benchScale(b *testing.B, cores int) {
	w.extra = []string{fmt.Sprintf("GOMAXPROCS=%d", cores)}
	defer func() { w.extra = nil }()
	var walls, cpus [2][]time.Duration
	for b.Loop() {
		for i, args := range [][]string{{"backup"}, restoreArgs()} {
			took, _ := w.backupd(b, args...)
			walls[i], cpus[i] = append(walls[i], took.wall), append(cpus[i], took.cpu)
		}
		w.remove(b, "backupd.etcd")
	}
	for i, what := range []string{"backup", "restore"} {
		b.ReportMetric(median(walls[i]).Seconds(), what+"-s")
		b.ReportMetric(median(cpus[i]).Seconds(), what+"-cpu-s")
	}
	b.ReportMetric(0, "ns/op")
}

func (w *world) benchBackup(b *testing.B) {
	var c comparison
	for b.Loop() {
		theirs := w.script(b, `
etcdctl snapshot save s.db
etcdutl snapshot status s.db
zstd -1 -q -f s.db -o s.db.zst
CURL -T s.db.zst URL/script/s.db.zst
rm s.db s.db.zst`)
		before := cpuOfProcess(b, w.cluster.Members[0].PID())
		ours, r := w.backupd(b, "backup")
		c.etcdCPU = append(c.etcdCPU, cpuOfProcess(b, w.cluster.Members[0].PID())-before)
		c.add(ours, theirs, r)
	}
	c.report(b)
}

// cpuOfProcess is the CPU time of a process that runs, in steps of 10 ms.
func cpuOfProcess(b *testing.B, pid int) time.Duration {
	b.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+1:]))
	total := 0
	for _, f := range fields[11:13] { // utime, stime
		n, err := strconv.Atoi(f)
		if err != nil {
			b.Fatal(err)
		}
		total += n
	}
	return time.Duration(total) * 10 * time.Millisecond
}

func (w *world) benchVerify(b *testing.B) {
	var c comparison
	for b.Loop() {
		theirs := w.script(b, `
CURL -o r.stored URL/script/s.db.zst
zstd -d -q -c r.stored > r.db
etcdutl snapshot status r.db
rm r.stored r.db`)
		ours, r := w.backupd(b, "verify", "latest")
		c.add(ours, theirs, r)
	}
	c.report(b)
}

// memberFlags name the member of a restored cluster, for both sides.
const memberFlags = "--name default --initial-cluster default=http://127.0.0.1:1 " +
	"--initial-advertise-peer-urls http://127.0.0.1:1"

func restoreArgs() []string {
	return strings.Fields("restore latest --bump-revision 0 --data-dir backupd.etcd " + memberFlags)
}

// benchRestore compares a restore with that of an object of the script, which decode writes to its
// standard output.
func (w *world) benchRestore(b *testing.B, object, decode string, more ...string) {
	args := append(restoreArgs(), more...)
	var c comparison
	for b.Loop() {
		theirs := w.script(b, `
CURL -o r.stored URL/script/`+object+`
`+decode+` > r.db
etcdutl snapshot restore r.db --data-dir script.etcd `+memberFlags)
		// Each side begins with the memory of the page cache that the other one has left.
		w.remove(b, "script.etcd", "r.db", "r.stored")
		ours, r := w.backupd(b, args...)
		w.remove(b, "backupd.etcd")
		c.add(ours, theirs, r)
	}
	c.report(b)
}

// remove removes folders and files of a round.
func (w *world) remove(b *testing.B, names ...string) {
	b.Helper()
	for _, name := range names {
		if err := os.RemoveAll(filepath.Join(w.dir, name)); err != nil {
			b.Fatal(err)
		}
	}
}

// benchEncrypted restores an encrypted snapshot.
func (w *world) benchEncrypted(b *testing.B) {
	key := filepath.Join(w.dir, "key.txt")
	if _, err := os.Stat(key); err != nil {
		run(b, nil, "age-keygen", "-o", key)
		recipient := strings.TrimSpace(run(b, nil, "age-keygen", "-y", key))
		w.backupd(b, "backup", "--cluster=sealed", "--recipient="+recipient)
		w.script(b, `
CURL -o r.stored URL/script/s.db.zst
age -r `+recipient+` -o r.age r.stored
CURL -T r.age URL/script/s.db.zst.age
rm r.stored r.age`)
	}
	w.benchRestore(b, "s.db.zst.age", "age -d -i key.txt r.stored | zstd -d -q -c",
		"--cluster=sealed", "--identity="+key)
}
