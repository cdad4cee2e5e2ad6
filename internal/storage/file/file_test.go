package file_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/file"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
)

func TestStore(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) storage.Store {
		dir := t.TempDir()
		t.Cleanup(func() { checkNoTemp(t, dir) })
		return file.New(dir)
	})
	t.Run("Answering", func(t *testing.T) {
		storagetest.Run(t, func(t *testing.T) storage.Store {
			dir := t.TempDir()
			t.Cleanup(func() { checkNoTemp(t, dir) })
			return storage.Answering(file.New(dir))
		})
	})
}

func checkNoTemp(t *testing.T, dir string) {
	t.Helper()
	for _, path := range temps(t, dir) {
		t.Errorf("%s was left", path)
	}
}

func temps(t *testing.T, dir string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".tmp") {
			found = append(found, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestStore_NoFolder: neither reading nor writing makes the folder, for its disk may not
// be mounted, and the error says what is wrong. MakeRoot makes it, but not its parent.
func TestStore_NoFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	s := file.New(dir)
	_, open := s.Open(t.Context(), "key", 0, -1)
	_, stat := s.Stat(t.Context(), "key")
	var list error
	for _, list = range s.List(t.Context(), "", "") {
	}
	_, repo := repository.Open(t.Context(), s, "")
	_, make := repository.Create(t.Context(), s)
	remove, create := s.Delete(t.Context(), "key"), s.Create(t.Context(), "key", strings.NewReader("x"))
	for op, err := range map[string]error{
		"open": open, "stat": stat, "list": list, "delete": remove, "create": create, "repository": repo,
		"make": make,
	} {
		if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "folder "+dir+" does not exist") {
			t.Errorf("%s: got error %v", op, err)
		}
	}
	if _, err := os.Stat(filepath.Dir(dir)); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal("a folder was made")
	}
	if err := s.MakeRoot(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a parent: got %v", err)
	}
	if err := os.Mkdir(filepath.Dir(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.MakeRoot(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := repository.Create(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if _, err := repository.Open(t.Context(), s, ""); err != nil {
		t.Fatal(err)
	}
}

func TestStore_Modes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "root")
	s := file.New(dir)
	if err := errors.Join(s.MakeRoot(), s.Create(t.Context(), "c1/key", strings.NewReader("x"))); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]fs.FileMode{"": 0o700, "c1": 0o700, "c1/key": 0o600} {
		info, err := os.Stat(filepath.Join(dir, path))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%q has mode %o, want %o", path, got, want)
		}
	}
}

// TestStore_Foreign: links, pipes and folders are no objects, and nothing
// leads out of the store's folder.
func TestStore_Foreign(t *testing.T) {
	outside := t.TempDir()
	secret := filepath.Join(outside, "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, target := range map[string]string{"link": secret, "dirlink": outside} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	s := file.New(dir)
	for _, key := range []string{"link", "dirlink", "dirlink/secret", "pipe", "folder"} {
		if r, err := s.Open(t.Context(), key, 0, -1); err == nil {
			raw, _ := io.ReadAll(r)
			t.Errorf("open %s: read %q", key, raw)
		}
		if o, err := s.Stat(t.Context(), key); err == nil {
			t.Errorf("stat %s: %+v", key, o)
		}
	}
	for _, key := range []string{"link", "dirlink", "pipe", "folder"} {
		if err := s.Create(t.Context(), key, strings.NewReader("x")); !errors.Is(err, fs.ErrExist) {
			t.Errorf("create %s: got error %v", key, err)
		}
		if err := s.Delete(t.Context(), key); err != nil {
			t.Errorf("delete %s: %v", key, err)
		}
		if _, err := os.Lstat(filepath.Join(dir, key)); err != nil {
			t.Errorf("%s is gone: %v", key, err)
		}
	}
	if err := s.Create(t.Context(), "dirlink/new", strings.NewReader("x")); err == nil {
		t.Error("created an object outside")
	}
	if err := s.Create(t.Context(), "object", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	if err := s.Create(t.Context(), "object/below", strings.NewReader("x")); err == nil {
		t.Error("created an object below an object")
	}
	for o, err := range s.List(t.Context(), "", "") {
		if err != nil || o.Key != "object" {
			t.Errorf("listed %+v, error %v", o, err)
		}
	}
	if raw, err := os.ReadFile(secret); err != nil || string(raw) != "secret" {
		t.Errorf("outside: %q, error %v", raw, err)
	}
}

// TestOpen_Truncated behind the reader's back.
func TestOpen_Truncated(t *testing.T) {
	dir := t.TempDir()
	s := file.New(dir)
	if err := s.Create(t.Context(), "key", strings.NewReader("0123456789")); err != nil {
		t.Fatal(err)
	}
	r, err := s.Open(t.Context(), "key", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := os.Truncate(filepath.Join(dir, "key"), 5); err != nil {
		t.Fatal(err)
	}
	if raw, err := io.ReadAll(r); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("read %q, error %v", raw, err)
	}
}

const childEnv = "BACKUPD_TEST_FILE_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		child(dir)
		return
	}
	os.Exit(m.Run())
}

// child creates an object from a source that never ends, and says so when it
// is under way.
func child(dir string) {
	read, said := 0, false // the file is begun when more was read than a small object has
	err := file.New(dir).Create(context.Background(), "c1/data/big", readerFunc(func(p []byte) (int, error) {
		if read >= 64<<10 && !said {
			said = true
			_, _ = os.Stdout.WriteString("writing\n")
		}
		n := min(len(p), 100)
		read += n
		return n, nil
	}))
	_, _ = os.Stdout.WriteString(err.Error() + "\n")
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// TestCreate_Killed: a writer that is killed leaves nothing that can be seen,
// and does not hinder the next one.
func TestCreate_Killed(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	killed := cmd.Process.Kill()
	_ = cmd.Wait() // it was killed
	if err != nil || killed != nil || line != "writing\n" {
		t.Fatalf("child said %q: %v, %v", line, err, killed)
	}
	if len(temps(t, dir)) != 1 {
		t.Fatalf("temporary files: %q", temps(t, dir))
	}
	s := file.New(dir)
	for o, err := range s.List(t.Context(), "", "") {
		t.Fatalf("listed %+v, error %v", o, err)
	}
	if err := s.Create(t.Context(), "c1/data/big", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
}
