package wire_test

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/etcd-backupd/backupd/internal/cluster/wire"
)

// split hands raw over in pieces, as frames would bring it.
func split(r *rand.Rand, raw []byte) mem.BufferSlice {
	var out mem.BufferSlice
	for len(raw) > 0 {
		n := 1 + r.IntN(min(len(raw), 9000))
		out = append(out, mem.SliceBuffer(bytes.Clone(raw[:n])))
		raw = raw[n:]
	}
	return out
}

// The codec must read every message as the one that gRPC brings does.
func TestCodec(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	c := &wire.Codec{}
	for i := range 500 {
		want := &pb.SnapshotResponse{RemainingBytes: r.Uint64() >> r.IntN(64)}
		if i%3 > 0 {
			want.Blob = make([]byte, r.IntN(40<<10))
			for j := range want.Blob {
				want.Blob[j] = byte(r.Uint32())
			}
		}
		if i%5 == 0 {
			want.Version = "3.7.0"
			want.Header = &pb.ResponseHeader{ClusterId: 7} // no server sends one; it must do no harm
		}
		raw, err := proto.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		got := &pb.SnapshotResponse{}
		if err := c.Unmarshal(split(r, raw), got); err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
		if !bytes.Equal(got.Blob, want.Blob) || got.RemainingBytes != want.RemainingBytes ||
			got.Version != want.Version {
			t.Fatalf("message %d differs: %d bytes, remaining %d, version %q",
				i, len(got.Blob), got.RemainingBytes, got.Version)
		}
		if len(raw) > 3 {
			err := c.Unmarshal(split(r, raw[:len(raw)-1]), &pb.SnapshotResponse{})
			if err == nil && len(want.Blob) > 0 {
				t.Fatalf("message %d cut by one byte is accepted", i)
			}
		}
	}
}

// TestCodec_Unknown: fields that a later etcd may add are skipped, whatever their
// type, before and after the ones that are known.
func TestCodec_Unknown(t *testing.T) {
	known, err := proto.Marshal(&pb.SnapshotResponse{RemainingBytes: 300, Blob: []byte("blob"), Version: "3.6.0"})
	if err != nil {
		t.Fatal(err)
	}
	for name, unknown := range unknownFields() {
		raw := slices.Concat(unknown, known, unknown)
		got := &pb.SnapshotResponse{}
		if err := (&wire.Codec{}).Unmarshal(mem.BufferSlice{mem.SliceBuffer(raw)}, got); err != nil {
			t.Errorf("%s: %v", name, err)
		} else if string(got.Blob) != "blob" || got.RemainingBytes != 300 || got.Version != "3.6.0" {
			t.Errorf("%s: %v", name, got)
		}
		cut := unknown[:len(unknown)-1]
		if err := (&wire.Codec{}).Unmarshal(mem.BufferSlice{mem.SliceBuffer(cut)}, got); err == nil {
			t.Errorf("%s, cut by one byte, is accepted", name)
		}
	}
}

func unknownFields() map[string][]byte {
	group := protowire.AppendTag(nil, 9, protowire.StartGroupType)
	group = protowire.AppendTag(group, 9, protowire.StartGroupType)
	group = append(group, 0x1d, 1, 2, 3, 4) // blob, if it were not in a group and of another type
	group = protowire.AppendTag(group, 9, protowire.EndGroupType)
	return map[string][]byte{
		"Varint":            protowire.AppendVarint(protowire.AppendTag(nil, 9, protowire.VarintType), 1<<40),
		"Fixed32":           protowire.AppendFixed32(protowire.AppendTag(nil, 9, protowire.Fixed32Type), 7),
		"Fixed64":           protowire.AppendFixed64(protowire.AppendTag(nil, 9, protowire.Fixed64Type), 7),
		"Bytes":             protowire.AppendString(protowire.AppendTag(nil, 9, protowire.BytesType), "bytes"),
		"Group":             protowire.AppendTag(group, 9, protowire.EndGroupType),
		"BlobOfAnotherType": protowire.AppendFixed64(protowire.AppendTag(nil, 3, protowire.Fixed64Type), 7),
	}
}

func FuzzCodec(f *testing.F) {
	seed, err := proto.Marshal(&pb.SnapshotResponse{RemainingBytes: 300, Blob: []byte("blob"), Version: "3.6.0"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte{0x1a, 0xff, 0xff, 0xff, 0xff, 0x0f})
	for _, unknown := range unknownFields() {
		f.Add(unknown)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, want := &pb.SnapshotResponse{}, &pb.SnapshotResponse{}
		err := (&wire.Codec{}).Unmarshal(mem.BufferSlice{mem.SliceBuffer(raw)}, got)
		if proto.Unmarshal(raw, want) != nil {
			return // protobuf also judges what is skipped here
		}
		if err != nil {
			t.Fatalf("%v, protobuf accepts it", err)
		}
		if !bytes.Equal(got.Blob, want.Blob) || got.RemainingBytes != want.RemainingBytes || got.Version != want.Version {
			t.Fatalf("got %v, want %v", got, want)
		}
	})
}
