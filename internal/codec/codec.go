// Package codec turns plain snapshot bytes into stored bytes and back:
//
//	plain -> SHA-256 -> zstd -> age -> SHA-256 -> stored
//
// Both ends are measured on the way, so one pass yields all sums, and one pass
// back proves those in the manifest. The usual tools read the stored form:
// age -d | zstd -d.
package codec

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"strings"

	"filippo.io/age"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/secret"
)

// Options say how plain bytes are stored. The zero value stores them unchanged.
type Options struct {
	Compress   Compression
	Recipients Recipients
}

// Compression names a compression; the zero value is none.
type Compression string

// The compressions.
const (
	None Compression = ""
	Zstd Compression = "zstd"
)

// ParseCompression parses "zstd" or "none".
func ParseCompression(s string) (Compression, error) {
	switch s {
	case "zstd":
		return Zstd, nil
	case "none":
		return None, nil
	}
	return None, fmt.Errorf("compression %q is not known: want zstd or none", s)
}

// Encoding returns o in the form that a manifest records.
func (o Options) Encoding() backup.Encoding {
	e := backup.Encoding{Compression: string(o.Compress)}
	if o.Recipients.Len() > 0 {
		e.Encryption = "age"
		e.Recipients = o.Recipients.Strings()
	}
	return e
}

// Recipients is a checked list of age recipients: public keys that stored bytes
// are encrypted to. The zero value means no encryption.
type Recipients struct {
	list  []age.Recipient
	names []string
	parse func(key string) (age.Recipient, error)
}

// Len returns the number of recipients.
func (r Recipients) Len() int { return len(r.list) }

// Strings returns the recipients as they were given.
func (r Recipients) Strings() []string { return r.names }

// ParseRecipients parses public keys (age1..., age1pq1...) and files of them. A
// file holds one key a line; blank lines and lines that begin with # are ignored.
// It is an error if a key is malformed, a file holds no key, or age cannot
// combine the keys (post-quantum and classic). No keys and no files mean no
// encryption. SSH keys and plugins need a person: see [Hand.ParseRecipients].
func ParseRecipients(keys, files []string) (Recipients, error) {
	return parseRecipients(keys, files, func(key string) (age.Recipient, error) {
		parsed, err := age.ParseRecipients(strings.NewReader(key))
		if err != nil || len(parsed) != 1 {
			return nil, fmt.Errorf("recipient %q is not an age public key (age1... or age1pq1...)%s", key, byHand(key))
		}
		return parsed[0], nil
	})
}

func parseRecipients(keys, files []string, parse func(key string) (age.Recipient, error)) (Recipients, error) {
	r := Recipients{parse: parse}
	for _, k := range keys {
		if err := r.add(k); err != nil {
			return Recipients{}, err
		}
	}
	for _, name := range files {
		raw, err := readNamed("recipients file", name)
		if err != nil {
			return Recipients{}, err
		}
		before := r.Len()
		for i, line := range strings.Split(string(raw), "\n") {
			line = strings.TrimSpace(line)
			if line == "" || strings.HasPrefix(line, "#") {
				continue
			}
			if err := r.add(line); err != nil {
				return Recipients{}, fmt.Errorf("%s:%d: %w", name, i+1, err)
			}
		}
		if r.Len() == before {
			return Recipients{}, fmt.Errorf("recipients file %s holds no recipient", name)
		}
	}
	if r.Len() == 0 {
		return r, nil
	}
	if _, err := age.Encrypt(io.Discard, r.list...); err != nil {
		return Recipients{}, fmt.Errorf("these recipients cannot be used together: %w", err)
	}
	return r, nil
}

func (r *Recipients) add(key string) error {
	key = strings.TrimSpace(key)
	if secret.Holds(key) {
		return errors.New("this is an age identity (a secret key), not a recipient: " +
			"give the public key that begins with age1")
	}
	parsed, err := r.parse(key)
	if err != nil {
		return err
	}
	r.list = append(r.list, parsed)
	r.names = append(r.names, withoutComment(key))
	return nil
}

// Identities are the secret keys that decrypt stored bytes. They exist only on
// the reading side.
type Identities []age.Identity

// ReadIdentities reads age identity files: one AGE-SECRET-KEY a line. All other kinds need a
// person: see [Hand.ReadIdentities].
func ReadIdentities(files []string) (Identities, error) {
	var ids Identities
	for _, name := range files {
		raw, err := readNamed("identity file", name)
		if err != nil {
			return nil, err
		}
		parsed, err := age.ParseIdentities(bytes.NewReader(raw))
		if err != nil {
			// The library's error can quote the line, which is a secret.
			return nil, fmt.Errorf("identity file %s holds no usable age identity "+
				"(want secret keys as age-keygen prints them, one a line; "+
				"plugins, SSH keys and passphrases are for commands by hand)",
				name)
		}
		ids = append(ids, parsed...)
	}
	return ids, nil
}

// readNamed reads a file of keys. A secret key in place of its name is not repeated.
func readNamed(what, name string) ([]byte, error) {
	if secret.Holds(name) {
		return nil, backup.WithHint(fmt.Errorf("read %s: this is a secret key, and not the name of a file", what),
			"write the key into a file that nobody else can read, and give the name of that; "+
				"a command line is seen by every user of the host, so make a new key if others use it")
	}
	raw, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", what, err)
	}
	return raw, nil
}

// meter counts and hashes the bytes that are written to it.
type meter struct {
	h hash.Hash
	n int64
}

func newMeter() *meter { return &meter{h: sha256.New()} }

func (m *meter) Write(p []byte) (int, error) {
	m.n += int64(len(p))
	return m.h.Write(p)
}

func (m *meter) blob() backup.Blob {
	return backup.Blob{Bytes: m.n, SHA256: backup.Digest(m.h.Sum(nil))}
}
