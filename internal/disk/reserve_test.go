package disk_test

import (
	"testing"

	"github.com/etcd-backupd/backupd/internal/disk"
)

// TestReserve: a reserve is a size or a part of the file system, and by default the
// larger of 15 % and 2 GiB.
func TestReserve(t *testing.T) {
	const gib = 1 << 30
	for text, c := range map[string]struct{ total, want int64 }{
		"":          {100 * gib, 15 * gib},
		"3GiB":      {100 * gib, 3 * gib},
		"20%":       {100 * gib, 20 * gib},
		"2.5 %":     {1000, 25},
		"0":         {100 * gib, 0},
		"0B":        {100 * gib, 0},
		"500000000": {gib, 500000000},
	} {
		r, err := disk.ParseReserve(text)
		if got := r.Of(disk.FileSystem{Total: c.total}); err != nil || got != c.want {
			t.Errorf("%q: got %d, %v, want %d", text, got, err, c.want)
		}
		again, err := disk.ParseReserve(r.String())
		if err != nil || again != r {
			t.Errorf("%q: its text %q means %+v, %v", text, r.String(), again, err)
		}
	}
	if got := (disk.Reserve{}).Of(disk.FileSystem{Total: gib}); got != 2*gib {
		t.Errorf("of a small file system: got %d", got)
	}
	for _, text := range []string{"-1", "100%", "%", "3GiBs", "much", "1e3", "99999999999999999999", "15 percent"} {
		if r, err := disk.ParseReserve(text); err == nil {
			t.Errorf("%q: got %+v", text, r)
		}
	}
}

// TestRepositoryReserve: by default 15 %, but at least 256 MiB and at most 2 GiB.
func TestRepositoryReserve(t *testing.T) {
	const mib, gib = 1 << 20, 1 << 30
	for total, want := range map[int64]int64{
		0: 256 * mib, 64 * mib: 256 * mib, 10 * gib: 1536 * mib, 100 * gib: 2 * gib,
		10000 * gib: 2 * gib,
	} {
		if got := (disk.RepositoryReserve{}).Of(disk.FileSystem{Total: total}); got != want {
			t.Errorf("of %d: got %d, want %d", total, got, want)
		}
	}
	given := disk.RepositoryReserve{Reserve: disk.ReserveOf(mib)}
	if got := given.Of(disk.FileSystem{Total: 100 * gib}); got != mib {
		t.Errorf("of a given one: got %d", got)
	}
}
