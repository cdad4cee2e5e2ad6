// Package registry tells what Kubernetes keeps in an etcd: how much, and with which keys its
// API server has encrypted it.
package registry

import (
	"bytes"

	"google.golang.org/protobuf/encoding/protowire"
)

var (
	// prefix is the API server's default of --etcd-prefix.
	prefix = []byte("/registry/")
	// encrypted begins each value that the API server has encrypted. It goes on with the
	// provider, a version and the name of the key, each with a colon after it
	// (k8s.io/apiserver, pkg/server/options/encryptionconfig).
	encrypted = []byte("k8s:enc:")
	secrets   = []byte("/registry/secrets/")
)

const (
	// maxHeader is longer than any beginning of a value that names a key.
	maxHeader = 320
	// maxKeys bounds the keys that are counted apart: nobody has more.
	maxKeys = 64
	// recordKey is the length of the key that a put has in the bucket.
	recordKey = 17
	// valueField is the value's in mvccpb.KeyValue (etcd api/mvccpb/kv.proto).
	valueField = 5
)

// Counter counts the objects of Kubernetes. The zero value is ready.
type Counter struct {
	// Objects counts all, PlainSecrets the Secrets that are not encrypted, and Keys for each
	// key the values that need it.
	Objects, PlainSecrets int64
	Keys                  map[Key]int64
}

// Key is an encryption key, by the names that each value begins with. The name is empty if
// the value does not tell it.
type Key struct{ Provider, Name string }

// Add takes a record of a key that exists as n objects: 1, or -1 if it was added and is not the
// newest of its key. pair is its own key in the bucket, of at least 17 bytes, and its value as stored.
func (c *Counter) Add(key, pair []byte, n int64) {
	if !bytes.HasPrefix(key, prefix) {
		return
	}
	c.Objects += n
	value, is := bytes.CutPrefix(valueOf(pair), encrypted)
	if !is {
		if bytes.HasPrefix(key, secrets) {
			c.PlainSecrets += n
		}
		return
	}
	k := parse(value[:min(len(value), maxHeader)])
	if c.Keys == nil {
		c.Keys = map[Key]int64{}
	}
	if _, known := c.Keys[k]; known || n > 0 && len(c.Keys) < maxKeys {
		if c.Keys[k] += n; c.Keys[k] == 0 {
			delete(c.Keys, k)
		}
	}
}

// valueOf returns the value of a put, or nil.
func valueOf(pair []byte) []byte {
	for rest := pair[min(len(pair), recordKey):]; len(rest) > 0; {
		number, kind, n := protowire.ConsumeTag(rest)
		if n < 0 {
			return nil
		}
		if number == valueField && kind == protowire.BytesType {
			value, _ := protowire.ConsumeBytes(rest[n:])
			return value
		}
		used := protowire.ConsumeFieldValue(number, kind, rest[n:])
		if used < 0 {
			return nil
		}
		rest = rest[n+used:]
	}
	return nil
}

// parse reads PROVIDER:VERSION:KEY: at the beginning of text.
func parse(text []byte) Key {
	provider, rest, _ := bytes.Cut(text, []byte(":"))
	_, rest, _ = bytes.Cut(rest, []byte(":"))
	name, _, ended := bytes.Cut(rest, []byte(":"))
	if !ended || !bytes.Equal(name, bytes.ToValidUTF8(name, nil)) {
		name = nil
	}
	provider = provider[:min(len(provider), 32)]
	return Key{string(bytes.ToValidUTF8(provider, nil)), string(name)}
}
