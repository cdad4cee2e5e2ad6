package cluster

import (
	"encoding/binary"
	"fmt"
	"io"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// snapshotCodec decodes the messages of one snapshot stream. gRPC's own codec
// copies a message three times and clears two buffers for it; this one copies the
// bytes once, into a buffer that is valid until the next message.
type snapshotCodec struct{ blob []byte }

// Name implements encoding.CodecV2.
func (c *snapshotCodec) Name() string { return "proto" }

// Marshal implements encoding.CodecV2, for the request.
func (c *snapshotCodec) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("encode %T: not a protobuf message", v)
	}
	raw, err := proto.Marshal(m)
	if err != nil {
		return nil, err
	}
	return mem.BufferSlice{mem.SliceBuffer(raw)}, nil
}

// Unmarshal implements encoding.CodecV2. It takes from a SnapshotResponse the
// fields remaining_bytes (2), blob (3) and version (4); no server sets another
// (etcd api/etcdserverpb/rpc.proto).
func (c *snapshotCodec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(*pb.SnapshotResponse)
	if !ok {
		return fmt.Errorf("decode %T: want a snapshot response", v)
	}
	r := data.Reader()
	defer r.Close()
	for r.Remaining() > 0 {
		if err := c.field(r, m); err != nil {
			return fmt.Errorf("decode snapshot response: %w", err)
		}
	}
	return nil
}

func (c *snapshotCodec) field(r *mem.Reader, m *pb.SnapshotResponse) error {
	tag, err := binary.ReadUvarint(r)
	if err != nil {
		return err
	}
	num, typ := protowire.DecodeTag(tag)
	n, err := binary.ReadUvarint(r) // the value, or the length of what follows
	switch {
	case err != nil:
		return err
	case typ == protowire.VarintType:
		if num == 2 {
			m.RemainingBytes = n
		}
		return nil
	case typ != protowire.BytesType || n > uint64(r.Remaining()):
		return fmt.Errorf("field %d is malformed", num)
	}
	if num != 3 {
		b := make([]byte, n)
		_, err := io.ReadFull(r, b)
		if num == 4 {
			m.Version = string(b)
		}
		return err
	}
	if uint64(cap(c.blob)) < n {
		c.blob = make([]byte, n)
	}
	m.Blob = c.blob[:n]
	_, err = io.ReadFull(r, m.Blob)
	return err
}
