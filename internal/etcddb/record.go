package etcddb

import (
	"encoding/binary"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/etcd-backupd/backupd/internal/backup"
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

// record holds the fields of an mvccpb.KeyValue that are checked. The value is
// skipped.
type record struct {
	key                         []byte
	create, mod, version, lease int64
	fields                      uint8 // bit n is set when field n was present
}

// The fields of mvccpb.KeyValue (etcd api/mvccpb/kv.proto).
const (
	fieldKey = iota + 1
	fieldCreate
	fieldMod
	fieldVersion
	fieldValue
	fieldLease
)

// parseRecord decodes an mvccpb.KeyValue. It accepts and refuses the same bytes as
// proto.Unmarshal, without copying the value: it skips unknown fields, and of a
// repeated field the last one counts.
func parseRecord(b []byte) (r record, err error) {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return record{}, protowire.ParseError(n)
		}
		// ConsumeTag accepts numbers that Unmarshal refuses.
		if num > protowire.MaxValidNumber {
			return record{}, fmt.Errorf("field number %d", num)
		}
		b = b[n:]
		switch {
		case (num == fieldKey || num == fieldValue) && typ == protowire.BytesType:
			var v []byte
			if v, n = protowire.ConsumeBytes(b); n >= 0 && num == fieldKey {
				r.key = v
			}
		case num >= fieldCreate && num <= fieldLease && num != fieldValue && typ == protowire.VarintType:
			var v uint64
			if v, n = protowire.ConsumeVarint(b); n >= 0 {
				r.setNumber(num, int64(v))
			}
		default:
			if n = protowire.ConsumeFieldValue(num, typ, b); n >= 0 {
				b = b[n:]
				continue
			}
		}
		if n < 0 {
			return record{}, protowire.ParseError(n)
		}
		r.fields |= 1 << num
		b = b[n:]
	}
	return r, nil
}

func (r *record) setNumber(num protowire.Number, v int64) {
	switch num {
	case fieldCreate:
		r.create = v
	case fieldMod:
		r.mod = v
	case fieldVersion:
		r.version = v
	case fieldLease:
		r.lease = v
	}
}

// check verifies that etcd can have written the record under rk. A put holds its
// own revision, a tombstone only the key. etcdutl's --bump-revision writes a record
// without content: it takes part in hashes like a put of the empty key.
func (r *record) check(rk recordKey) error {
	switch {
	case r.fields == 0 && rk.sub == 0 && !rk.tombstone:
		return nil
	case len(r.key) == 0:
		return backup.Corruptf("%s: names no key", rk)
	case rk.tombstone && r.fields != 1<<fieldKey:
		return backup.Corruptf("%s: holds more than the key", rk)
	case rk.tombstone:
		return nil
	case r.mod != rk.main:
		return backup.Corruptf("%s: says that it was written at revision %d", rk, r.mod)
	case r.create < 1 || r.create > r.mod:
		return backup.Corruptf("%s: says that the key was created at revision %d", rk, r.create)
	case r.version < 1:
		return backup.Corruptf("%s: version %d", rk, r.version)
	}
	return nil
}

// readRecord decodes and checks one entry of the key bucket.
func readRecord(e *element) (recordKey, record, error) {
	if e.flags != 0 {
		return recordKey{}, record{}, backup.Corruptf("record key %x has flags %#x", clip(e.key), e.flags)
	}
	rk, err := parseRecordKey(e.key)
	if err != nil {
		return rk, record{}, err
	}
	r, err := parseRecord(e.value)
	if err != nil {
		return rk, r, backup.Corruptf("%s: decode: %w", rk, err)
	}
	return rk, r, r.check(rk)
}
