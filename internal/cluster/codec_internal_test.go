package cluster

import (
	"bytes"
	"math/rand/v2"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
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
func TestSnapshotCodec(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	c := &snapshotCodec{}
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

func FuzzSnapshotCodec(f *testing.F) {
	seed, err := proto.Marshal(&pb.SnapshotResponse{RemainingBytes: 300, Blob: []byte("blob"), Version: "3.6.0"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte{0x1a, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, want := &pb.SnapshotResponse{}, &pb.SnapshotResponse{}
		err := (&snapshotCodec{}).Unmarshal(mem.BufferSlice{mem.SliceBuffer(raw)}, got)
		if err == nil && proto.Unmarshal(raw, want) == nil && !bytes.Equal(got.Blob, want.Blob) {
			t.Fatalf("blob %x, want %x", got.Blob, want.Blob)
		}
	})
}
