package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// BenchmarkRecovery measures the worst day: from the moment when all three members and their data
// are gone until verify-cluster finds the restored cluster as it was planned, by phase. The
// members are restored one after the other, as by one operator who goes from host to host; here they
// all have the same cores.
func BenchmarkRecovery(b *testing.B) {
	w := newWorldOf(b, 3)
	w.backupd(b, "init")
	w.backupd(b, "backup")
	spent := map[string]time.Duration{}
	n := 0
	for b.Loop() {
		b.StopTimer()
		for _, m := range w.cluster.Members {
			m.Kill()
			if err := os.RemoveAll(m.DataDir); err != nil {
				b.Fatal(err)
			}
		}
		n++
		plan := filepath.Join(w.dir, fmt.Sprintf("plan%d.yaml", n))
		b.StartTimer()
		for _, p := range w.recovery(b, plan) {
			began := time.Now()
			p.do()
			took := time.Since(began)
			fmt.Printf("%s: %v\n", p.name, took.Round(time.Millisecond)) // Logf of a benchmark is cut
			spent[p.name] += took
			spent["recovery"] += took
		}
	}
	for name, took := range spent {
		b.ReportMetric(took.Seconds()/float64(n), name+"-s")
	}
	b.ReportMetric(0, "ns/op")
}

// phase is a part of a recovery.
type phase struct {
	name string
	do   func()
}

// recovery returns what an operator does, in order.
func (w *world) recovery(b *testing.B, plan string) []phase {
	b.Helper()
	return []phase{
		{"plan", func() { w.backupd(b, "plan", "latest", "--output="+plan) }},
		{"restore", func() {
			for _, m := range w.cluster.Members {
				w.backupd(b, "restore", "--plan="+plan, "--name="+m.Name, "--data-dir="+m.DataDir, "--new")
			}
		}},
		{"start", func() {
			for _, m := range w.cluster.Members {
				m.Restart(b)
			}
			w.cluster.WaitReady(b)
		}},
		{"verify", func() {
			w.backupd(b, "verify-cluster", "--plan="+plan, "--wait=5m", "--endpoints="+strings.Join(w.cluster.Endpoints(), ","))
		}},
	}
}
