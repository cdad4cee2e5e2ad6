package etcddb

import (
	"encoding/binary"
	"fmt"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/etcddb/keyvalue"
)

// recordKey is the key of a record in the key bucket
// (etcd server/storage/mvcc/revision.go).
type recordKey struct {
	main, sub int64
	tombstone bool
}

const (
	recordKeyBytes    = 8 + 1 + 8
	tombstoneKeyBytes = recordKeyBytes + 1
)

func (k recordKey) String() string {
	if k.tombstone {
		return fmt.Sprintf("record %d_%d (tombstone)", k.main, k.sub)
	}
	return fmt.Sprintf("record %d_%d", k.main, k.sub)
}

// parseRecordKey decodes a revision: main, '_', sub, and a 't' for a tombstone.
func parseRecordKey(k []byte) (recordKey, error) {
	switch {
	case len(k) != recordKeyBytes && len(k) != tombstoneKeyBytes:
		return recordKey{}, backup.Corruptf("record key %x has %d bytes", clip(k), len(k))
	case k[8] != '_', len(k) == tombstoneKeyBytes && k[recordKeyBytes] != 't':
		return recordKey{}, backup.Corruptf("record key %x is not a revision", k)
	}
	rk := recordKey{
		main:      int64(binary.BigEndian.Uint64(k)),
		sub:       int64(binary.BigEndian.Uint64(k[9:])),
		tombstone: len(k) == tombstoneKeyBytes,
	}
	if rk.main < 1 || rk.sub < 0 {
		return recordKey{}, backup.Corruptf("record key %x is not a revision: %d_%d", k, rk.main, rk.sub)
	}
	return rk, nil
}

// appendRevision appends the record key of revision main_0.
func appendRevision(b []byte, main int64) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(main))
	b = append(b, '_')
	return binary.BigEndian.AppendUint64(b, 0)
}

// check verifies that etcd can have written the record r under rk. A put holds its
// own revision, a tombstone only the key. etcdutl's --bump-revision writes a record
// without content: it takes part in hashes like a put of the empty key.
func check(r *keyvalue.KeyValue, rk recordKey) error {
	switch {
	case r.Empty() && rk.sub == 0 && !rk.tombstone:
		return nil
	case len(r.Key) == 0:
		return backup.Corruptf("%s: names no key", rk)
	case rk.tombstone && !r.OnlyKey():
		return backup.Corruptf("%s: holds more than the key", rk)
	case rk.tombstone:
		return nil
	case r.Mod != rk.main:
		return backup.Corruptf("%s: says that it was written at revision %d", rk, r.Mod)
	case r.Create < 1 || r.Create > r.Mod:
		return backup.Corruptf("%s: says that the key was created at revision %d", rk, r.Create)
	case r.Version < 1:
		return backup.Corruptf("%s: version %d", rk, r.Version)
	}
	return nil
}

// readRecord decodes and checks one entry of the key bucket.
func readRecord(e *element) (recordKey, keyvalue.KeyValue, error) {
	if e.flags != 0 {
		return recordKey{}, keyvalue.KeyValue{}, backup.Corruptf("record key %x has flags %#x", clip(e.key), e.flags)
	}
	rk, err := parseRecordKey(e.key)
	if err != nil {
		return rk, keyvalue.KeyValue{}, err
	}
	r, err := keyvalue.Parse(e.value)
	if err != nil {
		return rk, r, backup.Corruptf("%s: decode: %w", rk, err)
	}
	return rk, r, check(&r, rk)
}
