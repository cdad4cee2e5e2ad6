package testserver

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gofrs/flock"
)

const rootModule = "github.com/etcd-backupd/backupd"

// A program is one binary of a module below test/servers.
type program struct {
	name string // what it is called here
	pkg  string // the package it is built from
}

func etcdPrograms() []program {
	return []program{
		{"etcd", "go.etcd.io/etcd/server/v3"},
		{"etcdctl", "go.etcd.io/etcd/etcdctl/v3"},
		{"etcdutl", "go.etcd.io/etcd/etcdutl/v3"},
	}
}

// kubernetes builds what stands before an etcd, and the client of that.
const kubernetes = "kubernetes"

// programs maps a module below test/servers to what it builds.
var programs = map[string][]program{
	"etcd-3.5":  etcdPrograms(),
	"etcd-3.6":  etcdPrograms(),
	"etcd-3.7":  etcdPrograms(),
	"versitygw": {{"versitygw", "github.com/versity/versitygw/cmd/versitygw"}},
	kubernetes: {
		{"kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"},
		{"kubectl", "k8s.io/kubernetes/cmd/kubectl"},
	},
}

// Versions returns the etcd minors to test with, oldest first: 3.5, 3.6 and
// 3.7 always, and 3.4 where that server is installed on PATH.
func Versions(t testing.TB) []string {
	t.Helper()
	versions := []string{"3.5", "3.6", "3.7"}
	if _, err := installed(t.Context(), "3.4", "etcd"); err == nil {
		versions = slices.Insert(versions, 0, "3.4")
	}
	return versions
}

// Binary returns the path of etcd, etcdctl or etcdutl of an etcd minor ("3.5",
// "3.6", "3.7", or "3.4" where [Versions] lists it). The first call on a
// machine builds all three and takes a minute or two. Setting
// BACKUPD_TEST_ETCD_3_6 (and so on) to a directory uses the binaries in there.
func Binary(t testing.TB, version, name string) string {
	t.Helper()
	if dir := os.Getenv("BACKUPD_TEST_ETCD_" + strings.ReplaceAll(version, ".", "_")); dir != "" {
		return override(t, dir, name)
	}
	if version == "3.4" {
		path, err := installed(t.Context(), version, name)
		must(t, "find "+name+" 3.4 on PATH", err)
		return path
	}
	return cached(t, "etcd-"+version, name)
}

// VersityGW returns the path of the S3 server, built on first use like
// [Binary]. BACKUPD_TEST_VERSITYGW may name a directory that holds it.
func VersityGW(t testing.TB) string {
	t.Helper()
	if dir := os.Getenv("BACKUPD_TEST_VERSITYGW"); dir != "" {
		return override(t, dir, "versitygw")
	}
	return cached(t, "versitygw", "versitygw")
}

func override(t testing.TB, dir, name string) string {
	t.Helper()
	path, err := exec.LookPath(filepath.Join(dir, name))
	must(t, "use the binaries named by the environment", err)
	return path
}

// installed finds a program on PATH and makes sure it is of that minor.
func installed(ctx context.Context, version, name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", err
	}
	arg := "--version"
	if name != "etcd" {
		arg = "version"
	}
	cmd := exec.CommandContext(ctx, path, arg)
	// The 3.4 client speaks the v2 API, which knows no such command, without it.
	cmd.Env = append(os.Environ(), "ETCDCTL_API=3")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("run %s %s: %w\n%s", path, arg, err, out)
	}
	if !strings.Contains(string(out), "ersion: "+version+".") {
		return "", fmt.Errorf("%s is not %s: %s", path, version, out)
	}
	return path, nil
}

// builds remembers in this process which module directories are ready, so that
// only the first caller reads the module files and takes the lock.
var builds struct {
	mu    sync.Mutex
	ready map[string]string // module to directory of its binaries
}

func cached(t testing.TB, module, name string) string {
	t.Helper()
	known := programs[module]
	if !slices.ContainsFunc(known, func(p program) bool { return p.name == name }) {
		t.Fatalf("testserver: no program %s in %s", name, module)
	}
	builds.mu.Lock()
	defer builds.mu.Unlock()
	if dir := builds.ready[module]; dir != "" {
		return filepath.Join(dir, name)
	}
	dir, err := buildOnce(t, module)
	must(t, "build "+module, err)
	if builds.ready == nil {
		builds.ready = make(map[string]string)
	}
	builds.ready[module] = dir
	return filepath.Join(dir, name)
}

// buildOnce returns the directory of the module's binaries and builds them if
// no process on this machine did so before.
func buildOnce(t testing.TB, module string) (string, error) {
	source, err := moduleDir(module)
	if err != nil {
		return "", err
	}
	target, err := cacheDir(source)
	if err != nil {
		return "", err
	}
	if complete(target, programs[module]) {
		return target, nil
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return "", err
	}
	// The packages of one `go test ./...` are separate processes; one of them
	// builds and the others wait here. Each module has a lock of its own, so
	// that a test of only the S3 server does not wait for etcd.
	lock := flock.New(target + ".lock")
	if _, err := lock.TryLockContext(t.Context(), 100*time.Millisecond); err != nil {
		return "", fmt.Errorf("lock %s: %w", target, err)
	}
	defer lock.Close()
	if complete(target, programs[module]) {
		return target, nil
	}
	t.Logf("building %s into %s; this happens once and takes a minute or two", module, target)
	return target, build(t.Context(), source, target, programs[module])
}

// build compiles into a scratch directory and renames it to target, so that
// target is never there in part.
func build(ctx context.Context, source, target string, want []program) error {
	scratch, err := os.MkdirTemp(filepath.Dir(target), "building-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	// One go command for all programs of a module: they share most packages.
	// No -trimpath and no change of CGO_ENABLED: either would give every
	// package another key in the compile cache than in our own build.
	args := []string{"-C", source, "build", "-o", scratch + string(filepath.Separator)}
	if filepath.Base(source) == kubernetes {
		// It is told its version by the linker, and charts ask for that.
		version, err := moduleVersion(ctx, source, "k8s.io/kubernetes")
		if err != nil {
			return err
		}
		args = append(args, "-ldflags=-X k8s.io/component-base/version.gitVersion="+version)
	}
	for _, p := range want {
		args = append(args, p.pkg)
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=readonly")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	for _, p := range want {
		if err := os.Rename(filepath.Join(scratch, builtName(p.pkg)), filepath.Join(scratch, p.name)); err != nil {
			return err
		}
	}
	// A directory left behind by an interrupted clean-up would stop the rename.
	if err := os.RemoveAll(target); err != nil {
		return err
	}
	return os.Rename(scratch, target)
}

// moduleVersion returns the version of a dependency of the module at source.
func moduleVersion(ctx context.Context, source, dependency string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "-C", source, "list", "-m", "-f", "{{.Version}}", dependency)
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=readonly")
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go list -m %s: %w", dependency, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// builtName is what go build calls the binary of a package: the last element
// of its path that is not a major version.
func builtName(pkg string) string {
	return filepath.Base(strings.TrimSuffix(pkg, "/v3"))
}

func complete(dir string, want []program) bool {
	for _, p := range want {
		if info, err := os.Stat(filepath.Join(dir, p.name)); err != nil || !info.Mode().IsRegular() {
			return false
		}
	}
	return true
}

// cacheDir names the directory for what the module at source builds: other
// pinned versions, another compiler or another platform give another name.
func cacheDir(source string) (string, error) {
	h := sha256.New()
	for _, name := range []string{"go.mod", "go.sum"} {
		data, err := os.ReadFile(filepath.Join(source, name))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %d\n", name, len(data))
		h.Write(data)
	}
	fmt.Fprintln(h, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	base, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(base, "backupd", "testbin", hex.EncodeToString(h.Sum(nil))), nil
}

// moduleDir finds test/servers/<module>, from this file or, in a binary built
// with -trimpath, from the directory the test runs in.
func moduleDir(module string) (string, error) {
	var starts []string
	if _, file, _, ok := runtime.Caller(0); ok && filepath.IsAbs(file) {
		starts = append(starts, filepath.Dir(file))
	}
	if wd, err := os.Getwd(); err == nil {
		starts = append(starts, wd)
	}
	for _, dir := range starts {
		for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
			data, err := os.ReadFile(filepath.Join(dir, "go.mod"))
			first, _, _ := strings.Cut(string(data), "\n")
			if err == nil && first == "module "+rootModule {
				return filepath.Join(dir, "test", "servers", module), nil
			}
		}
	}
	return "", fmt.Errorf("find the root of module %s above %v", rootModule, starts)
}
