package snapshot

import (
	"testing"

	"github.com/etcd-backupd/backupd/internal/cluster"
)

func TestTooLarge(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		name                    string
		quota, first, last, now int64 // MiB
		want                    bool
	}{
		{"NotGrown", 100, 99, 99, 99, false},
		{"Smaller", 100, 99, 99, 50, false},
		{"FarAway", 100, 50, 60, 62, false},
		{"Near", 100, 50, 94, 95, true},
		{"NearSoon", 100, 50, 60, 80, true},
		{"NearFromTheBeginning", 100, 96, 96, 97, false},
		{"HalfOfTheRest", 100, 96, 97, 98, true},
		{"Over", 100, 101, 101, 102, true},
		{"NotTold", 0, 1000, 1900, 1945, false},
		{"NotToldNear", 0, 1000, 1940, 1946, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			at := func(n int64) cluster.Candidate {
				return cluster.Candidate{DatabaseBytes: n * mib, QuotaBytes: c.quota * mib}
			}
			if got := tooLarge(at(c.first), at(c.last), at(c.now)); got != c.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

// TestQuota: nobody knows the quota of an old etcd whose file is larger than the default.
func TestQuota(t *testing.T) {
	for _, c := range []struct{ told, file, want int64 }{
		{8 << 30, 3 << 30, 8 << 30}, {0, 1 << 30, 2 << 30}, {0, 3 << 30, 0}, {-1, 1 << 30, 0},
	} {
		if got := quota(cluster.Candidate{QuotaBytes: c.told, DatabaseBytes: c.file}); got != c.want {
			t.Errorf("a quota of %d and a file of %d: %d, want %d", c.told, c.file, got, c.want)
		}
	}
}
