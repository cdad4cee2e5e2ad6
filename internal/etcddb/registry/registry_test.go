package registry_test

import (
	"maps"
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	"github.com/etcd-backupd/backupd/internal/etcddb/registry"
)

// add stores a value as etcd does.
func add(t *testing.T, c *registry.Counter, key, value string) {
	t.Helper()
	count(t, c, key, value, 1)
}

func count(t *testing.T, c *registry.Counter, key, value string, n int64) {
	t.Helper()
	raw, err := proto.Marshal(&mvccpb.KeyValue{
		Key: []byte(key), CreateRevision: 1 << 40, ModRevision: 1 << 41, Version: 1 << 30, Value: []byte(value), Lease: 7,
	})
	if err != nil {
		t.Fatal(err)
	}
	c.Add([]byte(key), append(make([]byte, 17), raw...), n)
}

func TestCounter(t *testing.T) {
	var c registry.Counter
	add(t, &c, "/registry/secrets/a/plain", "k8s\x00...")
	add(t, &c, "/registry/secrets/a/b", "k8s:enc:aescbc:v1:key1:data")
	add(t, &c, "/registry/secrets/a/c", "k8s:enc:aescbc:v1:key1:more")
	add(t, &c, "/registry/configmaps/a/d", "k8s:enc:kms:v2:vault:data")
	add(t, &c, "/registry/secrets/a/k8s:enc:aesgcm:v1:no:", "k8s\x00...") // in its name
	add(t, &c, "/registry/pods/a/b", "k8s\x00 that has k8s:enc:aesgcm:v1:inside: it")
	add(t, &c, "/registry/secrets/a/e", "k8s:enc:secretbox:v1:noend")
	add(t, &c, "/other/secrets/a/b", "k8s:enc:aescbc:v1:key9:data")
	want := map[registry.Key]int64{
		{Provider: "aescbc", Name: "key1"}: 2, {Provider: "kms", Name: "vault"}: 1, {Provider: "secretbox"}: 1,
	}
	if c.Objects != 7 || c.PlainSecrets != 2 || !maps.Equal(c.Keys, want) {
		t.Errorf("got %+v", c)
	}
	count(t, &c, "/registry/secrets/a/plain", "k8s\x00...", -1)
	count(t, &c, "/registry/configmaps/a/d", "k8s:enc:kms:v2:vault:data", -1)
	count(t, &c, "/registry/secrets/a/b", "k8s:enc:aescbc:v1:key1:data", -1)
	count(t, &c, "/registry/secrets/a/b", "k8s:enc:aescbc:v1:never:data", -1)
	want = map[registry.Key]int64{{Provider: "aescbc", Name: "key1"}: 1, {Provider: "secretbox"}: 1}
	if c.Objects != 3 || c.PlainSecrets != 1 || !maps.Equal(c.Keys, want) {
		t.Errorf("without three: got %+v", c)
	}
}

// FuzzCounter: bytes that no etcd wrote are counted, or not, and nothing else.
func FuzzCounter(f *testing.F) {
	f.Add([]byte("/registry/secrets/a"), []byte("12345678_87654321/registry/secrets/ak8s:enc:a:b:c:"))
	f.Fuzz(func(_ *testing.T, key, pair []byte) {
		var c registry.Counter
		c.Add(key, pair, 1)
	})
}
