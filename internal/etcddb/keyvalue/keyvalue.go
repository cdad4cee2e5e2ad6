// Package keyvalue decodes the mvccpb.KeyValue that is the value of each record of
// etcd, without a copy of the bytes.
package keyvalue

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// KeyValue holds the fields of an mvccpb.KeyValue but the value, which is skipped.
type KeyValue struct {
	Key                         []byte
	Create, Mod, Version, Lease int64
	fields                      uint8 // bit n is set when field n was present
}

// Empty reports whether it has no field at all.
func (r *KeyValue) Empty() bool { return r.fields == 0 }

// OnlyKey reports whether the key is its only field.
func (r *KeyValue) OnlyKey() bool { return r.fields == 1<<fieldKey }

// The fields of mvccpb.KeyValue (etcd api/mvccpb/kv.proto).
const (
	fieldKey = iota + 1
	fieldCreate
	fieldMod
	fieldVersion
	fieldValue
	fieldLease
)

// Parse decodes an mvccpb.KeyValue. It accepts and refuses the same bytes as
// proto.Unmarshal, without copying the value: it skips unknown fields, and of a
// repeated field the last one counts. It also refuses a known field of another wire type,
// as servers before etcd 3.7 do, which end over it.
func Parse(b []byte) (r KeyValue, err error) {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return KeyValue{}, protowire.ParseError(n)
		}
		// ConsumeTag accepts numbers that Unmarshal refuses.
		if num > protowire.MaxValidNumber {
			return KeyValue{}, fmt.Errorf("field number %d", num)
		}
		b = b[n:]
		switch {
		case (num == fieldKey || num == fieldValue) && typ == protowire.BytesType:
			var v []byte
			if v, n = protowire.ConsumeBytes(b); n >= 0 && num == fieldKey {
				r.Key = v
			}
		case num >= fieldCreate && num <= fieldLease && num != fieldValue && typ == protowire.VarintType:
			var v uint64
			if v, n = protowire.ConsumeVarint(b); n >= 0 {
				r.setNumber(num, int64(v))
			}
		case num >= fieldKey && num <= fieldLease:
			return KeyValue{}, fmt.Errorf("field %d has wire type %d", num, typ)
		default:
			if n = protowire.ConsumeFieldValue(num, typ, b); n >= 0 {
				b = b[n:]
				continue
			}
		}
		if n < 0 {
			return KeyValue{}, protowire.ParseError(n)
		}
		r.fields |= 1 << num
		b = b[n:]
	}
	return r, nil
}

func (r *KeyValue) setNumber(num protowire.Number, v int64) {
	switch num {
	case fieldCreate:
		r.Create = v
	case fieldMod:
		r.Mod = v
	case fieldVersion:
		r.Version = v
	case fieldLease:
		r.Lease = v
	}
}
