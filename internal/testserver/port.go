package testserver

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"github.com/gofrs/flock"
)

// Ports are taken below the range the kernel hands out for outgoing
// connections (32768 and up on Linux). From that range a port that was free a
// moment ago, or that belongs to a member killed a moment ago, may become the
// near end of somebody's connection.
const (
	firstPort = 20000
	lastPort  = 32000
)

// held are the ports this process has locked. A lock lasts as long as its file
// is open.
var held struct {
	mu    sync.Mutex
	ports map[int]*flock.Flock
}

// FreeURL returns "http://127.0.0.1:port" with a port that nothing listens on
// and that no other test on this machine is given until this one is over.
func FreeURL(t testing.TB) string {
	t.Helper()
	return "http://" + freeAddr(t)
}

// freeAddr is [FreeURL] without the scheme.
func freeAddr(t testing.TB) string {
	t.Helper()
	for range 10 * (lastPort - firstPort) {
		port := firstPort + rand.IntN(lastPort-firstPort)
		ok, err := reserve(port)
		must(t, "reserve a port", err)
		if !ok {
			continue
		}
		t.Cleanup(func() { release(port) })
		return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	}
	t.Fatalf("testserver: no free port between %d and %d", firstPort, lastPort)
	return ""
}

// reserve locks the port against other test processes, and reports whether it got
// the lock and nothing listens there.
func reserve(port int) (bool, error) {
	held.mu.Lock()
	defer held.mu.Unlock()
	if held.ports[port] != nil {
		return false, nil
	}
	dir := filepath.Join(os.TempDir(), "backupd-test-ports-"+strconv.Itoa(os.Getuid()))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return false, err
	}
	// The lock dies with the process that holds it, so nothing needs sweeping.
	lock := flock.New(filepath.Join(dir, strconv.Itoa(port)))
	if ok, err := lock.TryLock(); err != nil || !ok {
		return false, errors.Join(err, lock.Close())
	}
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return false, lock.Close()
	}
	if err := l.Close(); err != nil {
		return false, errors.Join(err, lock.Close())
	}
	if held.ports == nil {
		held.ports = make(map[int]*flock.Flock)
	}
	held.ports[port] = lock
	return true, nil
}

func release(port int) {
	held.mu.Lock()
	defer held.mu.Unlock()
	// Closing can fail only if the lock is gone already.
	_ = held.ports[port].Close()
	delete(held.ports, port)
}
