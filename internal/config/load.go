package config

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	"github.com/etcd-backupd/backupd/internal/config/strict"
)

// maxBytes is the largest size of a file. 50 clusters take about 30 KiB.
const maxBytes = strict.MaxBytes

// Load reads the file at path, with the environment of this process. Every problem
// is in the returned [*Error], even that the file cannot be read.
func Load(path string) (*Config, error) {
	raw, err := readFile(path, maxBytes)
	if err != nil {
		return nil, &Error{Problems: []Problem{{File: path, Message: err.Error()}}}
	}
	return Parse(path, raw, os.LookupEnv)
}

// readFile reads a file of at most limit bytes. Errors do not repeat the path.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, withoutPath(err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, withoutPath(err)
	}
	if int64(len(raw)) > limit {
		return nil, fmt.Errorf("the file has more than %d bytes", limit)
	}
	return raw, nil
}

// withoutPath turns "open PATH: no such file" into "open: no such file".
func withoutPath(err error) error {
	var pathErr *os.PathError
	if errors.As(err, &pathErr) {
		return fmt.Errorf("%s: %w", pathErr.Op, pathErr.Err)
	}
	return err
}

// Parse parses and checks the text of a file called name. It looks up variables
// with lookupEnv. It reads no file; [Config.CheckFiles] checks the files that the
// configuration names. The error is an [*Error].
func Parse(name string, raw []byte, lookupEnv func(string) (string, bool)) (*Config, error) {
	return parse(name, raw, lookupEnv, func(string) bool { return true })
}

// parse is [Parse], but only mistakes at the paths that matter are errors.
func parse(
	name string, raw []byte, lookupEnv func(string) (string, bool), matters func(path string) bool,
) (*Config, error) {
	c := &Config{}
	d, err := strict.Decode(name, raw, lookupEnv, c)
	if errors.Is(err, strict.ErrEmpty) {
		const message = "the file is empty: 'backupd config example' prints one to begin with"
		return nil, &Error{Problems: []Problem{{File: name, Message: message}}}
	}
	if err != nil {
		return nil, err
	}
	c.source = d.Source
	check(d, c)
	d.Drop(func(p Problem) bool { return !matters(p.Path) })
	if err := d.Err(); err != nil {
		return nil, err
	}
	return c, nil
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
