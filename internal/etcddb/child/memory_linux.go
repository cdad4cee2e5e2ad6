package child

import (
	"bufio"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// room returns how much memory children may take: three quarters of what the host and
// each control group around this process have left. The rest is for the parent, which
// works meanwhile. It returns 0 if the system does not tell. root is that of the host.
func room(root fs.FS) int64 {
	left := int64(0)
	for _, level := range append(groupRooms(root), hostRoom(root)) {
		if level > 0 && (left == 0 || level < left) {
			left = level
		}
	}
	return left - left/4
}

// hostRoom returns what the kernel can give without swapping.
func hostRoom(root fs.FS) int64 { return readFields(root, "proc/meminfo")["MemAvailable:"] << 10 }

// groupRooms returns what each control group of this process has left. A container may
// see its own group as the root, or see paths that do not exist inside of it.
func groupRooms(root fs.FS) (all []int64) {
	raw, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(raw)) {
		part := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(part) != 3 {
			continue
		}
		mount, g := "sys/fs/cgroup", group{
			max: "memory.max", used: "memory.current", files: []string{"inactive_file", "active_file"},
		}
		switch {
		case ofMemory(part[1]): // version 1
			mount, g = "sys/fs/cgroup/memory", group{
				max: "memory.limit_in_bytes", used: "memory.usage_in_bytes",
				files: []string{"total_inactive_file", "total_active_file"},
			}
		case part[1] != "":
			continue
		}
		for dir := path.Join(mount, part[2]); ; dir = path.Dir(dir) {
			all = append(all, g.room(root, dir))
			if dir == mount || !strings.HasPrefix(dir, mount+"/") {
				break
			}
		}
	}
	return all
}

// ofMemory reports whether the controllers of a hierarchy count memory.
func ofMemory(controllers string) bool {
	return slices.Contains(strings.Split(controllers, ","), "memory")
}

// group names the files of a control group.
type group struct {
	max, used string
	files     []string // in memory.stat: pages of files, which the kernel takes back
}

// room returns what the group has left, or 0 if it has no limit.
func (g group) room(root fs.FS, dir string) int64 {
	limit, err := readNumber(root, path.Join(dir, g.max))
	if err != nil || limit > 1<<60 {
		return 0
	}
	used, err := readNumber(root, path.Join(dir, g.used))
	if err != nil {
		return 0
	}
	stat := readFields(root, path.Join(dir, "memory.stat"))
	for _, name := range g.files {
		used -= stat[name]
	}
	return max(1, limit-max(0, used))
}

func readNumber(root fs.FS, name string) (int64, error) {
	raw, err := fs.ReadFile(root, name)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(raw)), 10, 64)
}

// readFields reads lines of a name and a number.
func readFields(root fs.FS, name string) map[string]int64 {
	out := map[string]int64{}
	f, err := root.Open(name)
	if err != nil {
		return out
	}
	defer f.Close() // only read from
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if part := strings.Fields(lines.Text()); len(part) >= 2 {
			if n, err := strconv.ParseInt(part[1], 10, 64); err == nil {
				out[part[0]] = n
			}
		}
	}
	return out
}

// kills returns how often the kernel has killed for lack of memory in the control groups
// of this process.
func kills(root fs.FS) (n int64) {
	raw, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(raw)) {
		part := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(part) != 3 {
			continue
		}
		for _, dir := range []string{part[2], ""} { // as this process sees it, or as its container does
			switch {
			case part[1] == "":
				n += readFields(root, path.Join("sys/fs/cgroup", dir, "memory.events"))["oom_kill"]
			case ofMemory(part[1]):
				n += readFields(root, path.Join("sys/fs/cgroup/memory", dir, "memory.oom_control"))["oom_kill"]
			}
		}
	}
	return n
}

// memoryRoom is [room] of this host, or less where a limit of this process is less.
func memoryRoom() int64 {
	left := room(os.DirFS("/"))
	var own syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_DATA, &own); err != nil || own.Cur > 1<<60 {
		return left
	}
	if left == 0 {
		return int64(own.Cur)
	}
	return min(left, int64(own.Cur))
}

// memoryKills is [kills] of this host.
func memoryKills() int64 { return kills(os.DirFS("/")) }

// limitMemory makes the kernel refuse this process more private memory than room beyond
// what it has. Go's runtime ends over that. Pages of the database do not count: they
// belong to a file. If memory runs out before, this is the process that the kernel shall
// kill.
func limitMemory(room int64) error {
	// A sandbox may forbid it, and there may be no /proc. The limit below still holds.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0)
	if room == 0 {
		return nil
	}
	raw, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return err
	}
	part := strings.Fields(string(raw))
	if len(part) < 6 {
		return fmt.Errorf("/proc/self/statm has %d fields", len(part))
	}
	pages, err := strconv.ParseInt(part[5], 10, 64)
	if err != nil {
		return err
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_DATA, &limit); err != nil {
		return err
	}
	limit.Max = min(limit.Max, uint64(pages*int64(os.Getpagesize())+room))
	limit.Cur = limit.Max
	return syscall.Setrlimit(syscall.RLIMIT_DATA, &limit)
}
