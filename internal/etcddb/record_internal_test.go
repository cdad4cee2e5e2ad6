package etcddb

import (
	"bytes"
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
)

// FuzzParseRecord holds the record parser against the real one: both must
// accept the same bytes and read the same numbers.
func FuzzParseRecord(f *testing.F) {
	whole, err := proto.Marshal(&mvccpb.KeyValue{
		Key: []byte("k"), CreateRevision: 2, ModRevision: 300, Version: 7, Value: []byte("value"), Lease: -1,
	})
	if err != nil {
		f.Fatal(err)
	}
	for i := range whole {
		f.Add(whole[:i+1])
	}
	f.Add([]byte{})
	f.Add(append(whole, whole...))                                // fields twice
	f.Add([]byte("\x0b\x0a\x01k\x0c"))                            // a group where the key should be
	f.Add([]byte("\x08\x05"))                                     // the key as a number
	f.Add([]byte("\x18\x80\x80\x80\x80\x80\x80\x80\x80\x80\x02")) // more than 64 bits
	f.Add([]byte("\x00\x01"))                                     // field 0
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := parseRecord(b)
		var want mvccpb.KeyValue
		if wantErr := proto.Unmarshal(b, &want); (err == nil) != (wantErr == nil) {
			t.Fatalf("parseRecord(%x): error %v, proto says %v", b, err, wantErr)
		}
		if err != nil {
			return
		}
		if !bytes.Equal(got.key, want.Key) || got.create != want.CreateRevision || got.mod != want.ModRevision ||
			got.version != want.Version || got.lease != want.Lease {
			t.Fatalf("parseRecord(%x) = %+v, proto says %v", b, got, &want)
		}
	})
}

func TestParseRecordKey(t *testing.T) {
	for _, k := range [][]byte{appendRevision(nil, 1), append(appendRevision(nil, 1<<62), 't')} {
		if _, err := parseRecordKey(k); err != nil {
			t.Errorf("parseRecordKey(%x): %v", k, err)
		}
	}
	good := appendRevision(nil, 7)
	for name, k := range map[string][]byte{
		"Empty":        {},
		"Short":        good[:16],
		"Long":         append(bytes.Clone(good), "tt"...),
		"WrongMark":    append(bytes.Clone(good), 'x'),
		"NoSeparator":  bytes.ReplaceAll(good, []byte("_"), []byte("-")),
		"NegativeMain": append([]byte{0x80}, good[1:]...),
		"NegativeSub":  append(bytes.Clone(good[:9]), 0xff, 0, 0, 0, 0, 0, 0, 0),
		"RevisionZero": appendRevision(nil, 0),
	} {
		if rk, err := parseRecordKey(k); err == nil {
			t.Errorf("%s: parseRecordKey(%x) = %v, want an error", name, k, rk)
		}
	}
}
