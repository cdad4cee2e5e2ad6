package server

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
)

// reloaded is a value parsed from files, and follows their changes. The files are
// read on each use, which costs microseconds, and parsed when their bytes differ.
// So it also notices a change that keeps size and time, and one behind a symbolic
// link. If the new contents are bad or missing, the old value stays and the log
// says so.
type reloaded[T any] struct {
	files []string
	parse func(contents [][]byte) (T, error)
	log   *slog.Logger

	mu        sync.Mutex // guards what follows
	contents  [][]byte
	value     T
	complaint string // the last one that was logged
}

func load[T any](log *slog.Logger, parse func(contents [][]byte) (T, error), files ...string) (*reloaded[T], error) {
	r := &reloaded[T]{files: files, parse: parse, log: log}
	contents, err := r.read()
	if err != nil {
		return nil, err
	}
	if r.value, err = parse(contents); err != nil {
		return nil, fmt.Errorf("%s: %w", r.names(), err)
	}
	r.contents = contents
	return r, nil
}

func (r *reloaded[T]) names() string { return strings.Join(r.files, ", ") }

func (r *reloaded[T]) read() ([][]byte, error) {
	contents := make([][]byte, len(r.files))
	for i, name := range r.files {
		raw, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		contents[i] = raw
	}
	return contents, nil
}

// get returns the current value.
func (r *reloaded[T]) get() T {
	r.mu.Lock()
	defer r.mu.Unlock()
	contents, err := r.read()
	if err == nil && slices.EqualFunc(contents, r.contents, bytes.Equal) {
		r.complaint = ""
		return r.value
	}
	if err == nil {
		var value T
		if value, err = r.parse(contents); err == nil {
			r.value, r.contents, r.complaint = value, contents, ""
			r.log.Info("read changed files again", "files", r.names())
			return value
		}
	}
	if complaint := err.Error(); complaint != r.complaint {
		r.complaint = complaint
		r.log.Error("changed files are bad; their old contents stay in use", "files", r.names(), "err", err)
	}
	return r.value
}
