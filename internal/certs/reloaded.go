package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"slices"
	"sync"
)

// Reloaded is a value that is parsed from files and follows their changes. The
// files are read on each use, which costs microseconds, and are parsed when their
// bytes have changed. So it sees a change that keeps the size and the time, or
// that swaps a symbolic link. While the new contents are bad or missing, for
// example because somebody is just writing them, the old value stays, with a line
// in the log. Several goroutines may use it at once.
type Reloaded[T any] struct {
	files []string
	parse func(contents [][]byte) (T, error)
	log   *slog.Logger

	mu        sync.Mutex // guards what follows
	contents  [][]byte
	value     T
	complaint string // the last one that was logged, until all is well again
}

// Load reads files and parses their contents, which it passes on in the same
// order. They must be good now.
func Load[T any](log *slog.Logger, parse func(contents [][]byte) (T, error), files ...string) (*Reloaded[T], error) {
	r := &Reloaded[T]{files: files, parse: parse, log: log}
	var err error
	if r.contents, err = readAll(files); err != nil {
		return nil, err
	}
	if r.value, err = parse(r.contents); err != nil {
		return nil, fmt.Errorf("%s: %w", names(files), err)
	}
	return r, nil
}

// LoadPool is [ReadPool] for a file that may change.
func LoadPool(log *slog.Logger, file string) (*Reloaded[*x509.CertPool], error) {
	return Load(log, parsePool, file)
}

// LoadPair is [ReadPair] for files that may change. While only one of them has
// changed the old pair stays.
func LoadPair(log *slog.Logger, certFile, keyFile string) (*Reloaded[*tls.Certificate], error) {
	return Load(log, parsePair, certFile, keyFile)
}

// Get returns the value that the files hold now.
func (r *Reloaded[T]) Get() T {
	r.mu.Lock()
	defer r.mu.Unlock()
	contents, err := readAll(r.files)
	if err == nil && slices.EqualFunc(contents, r.contents, bytes.Equal) {
		r.complaint = ""
		return r.value
	}
	if err == nil {
		var value T
		if value, err = r.parse(contents); err == nil {
			r.value, r.contents, r.complaint = value, contents, ""
			r.log.Info("read changed files again", "files", names(r.files))
			return value
		}
	}
	if complaint := err.Error(); complaint != r.complaint {
		r.complaint = complaint
		r.log.Warn("changed files are bad; their old contents stay in use", "files", names(r.files), "err", err)
	}
	return r.value
}
