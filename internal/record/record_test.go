package record_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/notify"
	"github.com/etcd-backupd/backupd/internal/record"
)

var now = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

func full() record.Record {
	at := func(hours int) time.Time { return now.Add(-time.Duration(hours) * time.Hour) }
	told := notify.Remembered{Job: "backup", Kind: notify.Failed, Since: at(3)}
	heard := told
	heard.Receiver, heard.At = "0a1b2c3d", at(2)
	return record.Record{
		Format: record.Format, Repository: "main", Cluster: "prod", WrittenAt: now, Address: "--repo file:///backups",
		RepositoryID: "n4qk7v2x5yj3m6d7r2t4w6z5ae", Since: at(100), Read: at(1), Confirmed: at(5),
		Newest:   "20261129T070000Z-r7-k7q2xd",
		Revision: 7, Attempted: at(1), Pruned: at(5), Failing: at(3), Error: "no route to host",
		Notifications: notify.Memory{Failing: []notify.Remembered{told}, Told: []notify.Remembered{heard}},
	}
}

func TestRecord(t *testing.T) {
	dir := t.TempDir()
	if got, err := record.Read(dir, "main", "prod", now); got != nil || err != nil {
		t.Errorf("of nothing: %+v, %v", got, err)
	}
	for range 2 { // the second one replaces the first
		if err := record.Write(dir, full()); err != nil {
			t.Fatal(err)
		}
	}
	got, err := record.Read(dir, "main", "prod", now)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(full(), *got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if got, err := record.Read(dir, "main", "other", now); got != nil || err != nil {
		t.Errorf("of another cluster: %+v, %v", got, err)
	}
	info, err := os.Stat(record.Path(dir, "main", "prod"))
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// TestRecord_Refused: a record that cannot be true says nothing, and says so.
func TestRecord_Refused(t *testing.T) {
	for want, spoil := range map[string]func(t *testing.T, path string){
		"damaged": func(t *testing.T, path string) { put(t, path, "{\"format\": \"backupd/rec") },
		"empty":   func(t *testing.T, path string) { put(t, path, "") },
		"unknown format \"backupd/record/v2\"": func(t *testing.T, path string) {
			replace(t, path, record.Format, "backupd/record/v2")
		},
		"it is of cluster \"test\"": func(t *testing.T, path string) { replace(t, path, `"prod"`, `"test"`) },
		"in the future": func(t *testing.T, path string) {
			replace(t, path, "2026-11-29T12:00:00Z", "2027-01-01T00:00:00Z")
		},
		"was written before": func(t *testing.T, path string) {
			replace(t, path, `"confirmed": "2026`, `"confirmed": "2062`)
		},
		"nobody else may write": func(t *testing.T, path string) {
			if err := os.Chmod(path, 0o666); err != nil {
				t.Fatal(err)
			}
		},
		"symbolic": func(t *testing.T, path string) {
			if err := errors.Join(os.Rename(path, path+".real"), os.Symlink(path+".real", path)); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(want, func(t *testing.T) {
			dir := t.TempDir()
			if err := record.Write(dir, full()); err != nil {
				t.Fatal(err)
			}
			path := record.Path(dir, "main", "prod")
			spoil(t, path)
			got, err := record.Read(dir, "main", "prod", now)
			if got != nil || err == nil || !strings.Contains(err.Error(), path) {
				t.Fatalf("got %+v, %v", got, err)
			}
			switch want {
			case "damaged", "empty", "was written before":
				if !errors.Is(err, backup.ErrCorrupt) {
					t.Errorf("got %v", err)
				}
			case "symbolic":
			default:
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want %q", err, want)
				}
			}
		})
	}
}

// TestRecord_Documented: docs/format.md shows a record as it is.
func TestRecord_Documented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/format.md")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := record.Write(dir, full()); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(record.Path(dir, "main", "prod"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(doc), "```json\n"+string(raw)+"```") {
		t.Errorf("docs/format.md does not show\n%s", raw)
	}
	if name := filepath.Base(record.Path("", "<repository>", "<cluster>")); !strings.Contains(string(doc), "`"+name+"`") {
		t.Errorf("docs/format.md does not name %s", name)
	}
}

func put(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func replace(t *testing.T, path, old, text string) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(raw), old) {
		t.Fatalf("%s: %v", raw, err)
	}
	put(t, path, strings.ReplaceAll(string(raw), old, text))
}
