package companion

import (
	"bytes"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"
)

// The tests write their files just before.
func init() { quiet = 0 }

// TestStable: a file that is never the same twice is not stored half, and one that settles is
// stored as it has become.
func TestStable(t *testing.T) {
	info, err := os.Stat(".")
	if err != nil {
		t.Fatal(err)
	}
	reads := 0
	c := &calm{now: time.Now}
	_, _, err = c.stable(func() ([]byte, fs.FileInfo, error) {
		reads++
		return []byte{byte(reads)}, nil, nil
	})
	if err == nil || !strings.Contains(err.Error(), "it changes while it is read") || reads != 2*tries {
		t.Errorf("after %d reads: %v", reads, err)
	}
	reads = 0
	raw, _, err := c.stable(func() ([]byte, fs.FileInfo, error) {
		reads++
		return []byte{byte(min(reads, 3))}, info, nil
	})
	if err != nil || raw[0] != 3 || reads != 4 {
		t.Errorf("after %d reads: %v, %v", reads, raw, err)
	}
}

// TestStable_Half: a file that is written with a pause is not stored half: it is waited for, and if
// it is still being written it is missing, within the patience for all files.
func TestStable_Half(t *testing.T) {
	path := t.TempDir() + "/half"
	for what, pauses := range map[string]int{"once": 1, "twice": 2, "for ever": 1000} {
		if err := os.WriteFile(path, []byte("HA"), 0o600); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		wrote, waited := info.ModTime(), time.Duration(0)
		c := &calm{quiet: 2 * time.Second, patience: patience, now: func() time.Time { return wrote.Add(waited) }}
		writes := 0
		c.wait = func(d time.Duration) {
			waited += d
			if writes++; writes < pauses {
				if err := os.WriteFile(path, bytes.Repeat([]byte("HA"), writes+1), 0o600); err != nil {
					t.Error(err)
				}
				// The clock of the test stands at the last write.
				if info, err = os.Stat(path); err == nil {
					wrote = info.ModTime().Add(-waited)
				}
			}
		}
		raw, _, err := c.stable(func() ([]byte, fs.FileInfo, error) {
			raw, err := os.ReadFile(path)
			if err != nil {
				return nil, nil, err
			}
			info, err := os.Stat(path)
			return raw, info, err
		})
		if pauses < 10 && (err != nil || len(raw) != 2*pauses) {
			t.Errorf("%s: %q, %v", what, raw, err)
		}
		if pauses > 10 && (err == nil || !strings.Contains(err.Error(), "may be half") || waited > patience) {
			t.Errorf("%s: %q, %v, after %s", what, raw, err, waited)
		}
	}
}
