package keyvalue_test

import (
	"bytes"
	"fmt"
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/etcd-backupd/backupd/internal/etcddb/keyvalue"
)

// FuzzParse holds the record parser against the real one: both must
// accept the same bytes and read the same numbers. The real one skips a known field of
// another wire type, over which older servers end.
func FuzzParse(f *testing.F) {
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
		got, err := keyvalue.Parse(b)
		var want mvccpb.KeyValue
		wantErr := proto.Unmarshal(b, &want)
		if wantErr == nil {
			wantErr = wrongType(want.ProtoReflect())
		}
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("Parse(%x): error %v, proto says %v", b, err, wantErr)
		}
		if err != nil {
			return
		}
		if !bytes.Equal(got.Key, want.Key) || got.Create != want.CreateRevision || got.Mod != want.ModRevision ||
			got.Version != want.Version || got.Lease != want.Lease {
			t.Fatalf("Parse(%x) = %+v, proto says %v", b, got, &want)
		}
	})
}

// wrongType reports a known field among those that were skipped.
func wrongType(m protoreflect.Message) error {
	for b := m.GetUnknown(); len(b) > 0; {
		num, _, n := protowire.ConsumeField(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		if f := m.Descriptor().Fields().ByNumber(num); f != nil {
			return fmt.Errorf("field %s is skipped", f.Name())
		}
		b = b[n:]
	}
	return nil
}
