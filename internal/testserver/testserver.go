// Package testserver runs the real servers that tests work against: etcd of
// every supported version as real processes, a real S3 server (versitygw), and
// two ways to break them on purpose, a TCP proxy and a fake member that lies.
//
// Only tests may import it. Nothing here skips: if a server cannot be built or
// started, the test fails with the output of the program that refused.
//
// Binaries are built from the small modules in test/servers, once per machine,
// and kept below the user's cache directory. Every process dies with the test
// that asked for it, and on Linux also when the test binary itself is killed.
package testserver

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"
)

// pollEvery is the longest pause between two looks at a condition.
const pollEvery = 50 * time.Millisecond

// waitUntil calls ready until it returns nil, and returns its last error when
// limit is over or ctx ends.
func waitUntil(ctx context.Context, limit time.Duration, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

// tail returns the last lines of the file at path, for messages.
func tail(path string, lines int) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	if len(all) > lines {
		all = all[len(all)-lines:]
	}
	for i, line := range all {
		// etcd logs stack traces in one line.
		all[i] = line[:min(len(line), 220)]
	}
	return strings.Join(all, "\n")
}

// must fails the test when err is not nil, with what was being done.
func must(t testing.TB, doing string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("testserver: %s: %v", doing, err)
	}
}
