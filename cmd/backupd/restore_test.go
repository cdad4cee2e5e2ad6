package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/etcd-backupd/backupd/internal/publish"
)

// stuck is a restore over old data that is complete and cannot be put into place. With
// half of it moved it can only be finished.
func stuck(t *testing.T, half bool) (dir string) {
	t.Helper()
	return interrupted(t, func(op, path string) bool {
		return !half && op == "exchange" || strings.Contains(path, publish.AsidePrefix)
	}, func(tree string) error { return os.MkdirAll(tree, 0o700) })
}

// interrupted is a restore over old data that ended at the first step that fails. fill makes
// what is restored.
func interrupted(t *testing.T, fails func(op, path string) bool, fill func(tree string) error) (dir string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	dir = filepath.Join(t.TempDir(), "data")
	must(os.MkdirAll(filepath.Join(dir, "member"), 0o700))
	f, err := publish.NewFolder(publish.Place{Dir: dir, Heart: "member"}, nil)
	must(err)
	shop, err := publish.Begin([]publish.Group{{f}}, func(op, path string) error {
		if fails(op, path) {
			return unix.EIO
		}
		return nil
	})
	must(err)
	must(fill(f.Tree()))
	err = shop.Publish("snapshot x", map[string]any{"summary": map[string]any{
		"restoredFrom": "snapshot x", "members": []any{map[string]any{"name": "m1", "peerURLs": []string{"http://h:1"}}},
		"targets": []any{map[string]any{"member": "m1", "dataDir": dir}},
	}})
	if !errors.Is(err, unix.EIO) {
		t.Fatalf("it was not interrupted: %v", err)
	}
	must(shop.Close())
	return dir
}

// TestRestore_Abort gives up a restore while nothing has been moved, and only then.
func TestRestore_Abort(t *testing.T) {
	dir := stuck(t, false)
	_, _, stderr := backupd("snapshot", "restore", "no-such-file", "--data-dir", dir)
	for _, flag := range []string{"--finish", "--abort"} {
		if want := "backupd restore " + flag + " --data-dir=" + dir; !strings.Contains(stderr, want) {
			t.Errorf("a restore to the same folder says nothing of %q:\n%s", want, stderr)
		}
	}
	code, stdout, stderr := backupd("restore", "--abort", "--data-dir", dir)
	if code != 0 || !strings.Contains(stdout, "Gave up the interrupted restore of snapshot x") {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
	entries, err := os.ReadDir(filepath.Dir(dir))
	if err != nil || len(entries) != 1 {
		t.Errorf("there is now %v, %v", entries, err)
	}
	if code, _, stderr := backupd("restore", "--abort", "--data-dir", dir); code != 5 ||
		!strings.Contains(stderr, "no restore to "+dir+" was interrupted") {
		t.Errorf("once more: exit code %d\n%s", code, stderr)
	}
	if code, _, stderr := backupd("restore", "--abort", "--finish", "--data-dir", dir); code != 64 {
		t.Errorf("with --finish: exit code %d\n%s", code, stderr)
	}
	if code, _, stderr := backupd("restore", "--abort", "--data-dir", dir, "--replace"); code != 64 {
		t.Errorf("with --replace: exit code %d\n%s", code, stderr)
	}

	dir = stuck(t, false)
	if code, stdout, _ := backupd("restore", "--abort", "--data-dir", dir, "-w", "json"); code != 0 ||
		!strings.Contains(stdout, `"kind":"backupd/restore-aborted/v1"`) {
		t.Errorf("as JSON: exit code %d\n%s", code, stdout)
	}

	dir = stuck(t, true)
	_, _, stderr = backupd("snapshot", "restore", "no-such-file", "--data-dir", dir)
	if strings.Contains(stderr, "--abort") || !strings.Contains(stderr, "--finish") {
		t.Errorf("with half of it moved a restore to the same folder says:\n%s", stderr)
	}
	code, _, stderr = backupd("restore", "--abort", "--data-dir", dir)
	if code != 6 || !strings.Contains(stderr, "can only be finished") ||
		!strings.Contains(stderr, "backupd restore --finish --data-dir="+dir) {
		t.Errorf("with half of it moved: exit code %d\n%s", code, stderr)
	}
	code, stdout, stderr = backupd("restore", "--finish", "--data-dir", dir)
	if code != 0 || !strings.Contains(stdout, "Its old data is in "+dir+publish.AsidePrefix) {
		t.Errorf("finished: exit code %d\n%s%s", code, stdout, stderr)
	}
}

// TestRestore_KeepsFiles keeps the files without which nobody gets at the snapshot.
func TestRestore_KeepsFiles(t *testing.T) {
	o := restoreOptions{repo: repoFlags{repo: "s3://bucket/prefix"}}
	o.repo.options.S3.CAFile, o.repo.options.S3.CredentialsFile, o.repo.options.S3.SSECKeyFile = "ca", "login", "key"
	o.identity.files = []string{"id"}
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "shared")
	var order restoreOrder
	o.keepFiles(&app{config: "conf"}, &order)
	var got []string
	for _, k := range order.site.Kept {
		got = append(got, k.Path)
	}
	for _, want := range []string{"ca", "login", "key", "id", "shared", "conf"} {
		if !slices.Contains(got, want) {
			t.Errorf("%s is not kept, of %q", want, got)
		}
	}
}
