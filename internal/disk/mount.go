package disk

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// Mount is one mount of this process.
type Mount struct {
	Point  string // where it is
	Device string // the file system, as major:minor
	Root   string // the folder of the file system that is seen there
}

// Mounts lists all mounts of this process, a later one over an earlier one. Without a
// proc file system it returns none.
func Mounts() ([]Mount, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for mount points: %w", err)
	}
	defer f.Close()
	var out []Mount
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		// The fields are those of proc(5): id, parent, device, root, mount point.
		if fields := strings.Fields(sc.Text()); len(fields) > 4 {
			out = append(out, Mount{unescapeMount(fields[4]), fields[2], unescapeMount(fields[3])})
		}
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("look for mount points: %w", err)
	}
	return out, nil
}

var mountEscapes = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

func unescapeMount(s string) string { return mountEscapes.Replace(s) }
