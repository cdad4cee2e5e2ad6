package child

import (
	"errors"
	"strings"
	"testing"
	"testing/fstest"
)

func TestRoom(t *testing.T) {
	const mib = 1 << 20
	host := "MemTotal: 8000 kB\nMemAvailable: 4194304 kB\n"
	for _, c := range []struct {
		name  string
		files map[string]string
		want  int64
	}{
		{"NothingIsKnown", nil, 0},
		{"NoGroup", map[string]string{"proc/meminfo": host}, 3072 * mib},
		{"GroupWithoutLimit", map[string]string{
			"proc/meminfo": host, "proc/self/cgroup": "0::/user.slice\n",
			"sys/fs/cgroup/user.slice/memory.max": "max\n", "sys/fs/cgroup/user.slice/memory.current": "99999\n",
		}, 3072 * mib},
		{"Container", map[string]string{
			"proc/meminfo": host, "proc/self/cgroup": "0::/\n",
			"sys/fs/cgroup/memory.max": "1073741824", "sys/fs/cgroup/memory.current": "805306368",
			"sys/fs/cgroup/memory.stat": "anon 1\ninactive_file 268435456\nactive_file 268435456\nshmem 7\n",
		}, 576 * mib},
		{"ParentIsSmaller", map[string]string{
			"proc/meminfo": host, "proc/self/cgroup": "0::/pod/container\n",
			"sys/fs/cgroup/pod/container/memory.max": "max", "sys/fs/cgroup/pod/container/memory.current": "1",
			"sys/fs/cgroup/pod/memory.max": "536870912", "sys/fs/cgroup/pod/memory.current": "134217728",
		}, 288 * mib},
		{"Version1", map[string]string{
			"proc/meminfo": host, "proc/self/cgroup": "3:cpu,cpuacct:/x\n4:hugetlb,memory:/not/seen/inside\n0::/\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "536870912",
			"sys/fs/cgroup/memory/memory.usage_in_bytes": "402653184",
			"sys/fs/cgroup/memory/memory.stat":           "total_inactive_file 268435456\ntotal_active_file 0\n",
		}, 288 * mib},
		{"HostIsFull", map[string]string{"proc/meminfo": "MemAvailable: 1024 kB\n"}, 768 << 10},
		{"GroupIsFull", map[string]string{
			"proc/meminfo": host, "proc/self/cgroup": "0::/\n",
			"sys/fs/cgroup/memory.max": "1000", "sys/fs/cgroup/memory.current": "2000",
		}, 1}, // and not 0, which is no limit
	} {
		root := fstest.MapFS{}
		for name, content := range c.files {
			root[name] = &fstest.MapFile{Data: []byte(content)}
		}
		if got := room(root); got != c.want {
			t.Errorf("%s: room for %d MiB, want %d", c.name, got/mib, c.want/mib)
		}
	}
}

func TestShare(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct{ room, children, want int64 }{
		{0, 1, 0}, {900 * mib, 1, 900 * mib}, {900 * mib, 3, 300 * mib}, {90 * mib, 3, 64 * mib}, {1, 1, 64 * mib},
	} {
		if got := share(c.room, c.children); got != c.want {
			t.Errorf("of %d MiB one of %d children gets %d, want %d", c.room/mib, c.children, got/mib, c.want/mib)
		}
	}
}

// setRoom lets the children of a test have so much memory.
func setRoom(t *testing.T, bytes int64) {
	before := roomFor
	t.Cleanup(func() { roomFor = before })
	roomFor = func(int64) int64 { return bytes }
}

// TestRun_TooMuchMemory: a child that takes more than it may ends, this process does not.
func TestRun_TooMuchMemory(t *testing.T) {
	setRoom(t, 200<<20)
	_, err := Run[answer](t.Context(), testRole, "eat", nil)
	var lack *MemoryError
	if err != nil && strings.Contains(err.Error(), "ThreadSanitizer failed to allocate") {
		return // the race detector ends a process in its own words
	}
	if !errors.As(err, &lack) || lack.Limit != 200<<20 || lack.Killed || !strings.Contains(err.Error(), "200 MiB") {
		t.Errorf("a child that wants 1 GiB and may have 200 MiB: %v", err)
	}
}

// TestRun_IsKilledFirst: the kernel looks for this score when there is no more memory.
func TestRun_IsKilledFirst(t *testing.T) {
	got, err := Run[answer](t.Context(), testRole, "report", nil)
	if err != nil {
		t.Fatal(err)
	}
	if got.Score != "1000" {
		t.Errorf("the score of a child is %q, want 1000", got.Score)
	}
}
