package entry

import (
	"testing"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// v2 is a request as etcd 3.5 writes it, with all fields that decide.
func v2(method, path, value string) []byte {
	b := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 77)
	for i, s := range []string{method, path, value} {
		b = protowire.AppendString(protowire.AppendTag(b, protowire.Number(i+2), protowire.BytesType), s)
	}
	b = protowire.AppendVarint(protowire.AppendTag(b, 5, protowire.VarintType), 0)
	return protowire.AppendString(protowire.AppendTag(b, 6, protowire.BytesType), "")
}

func entryOf(data []byte) *raftpb.Entry { return &raftpb.Entry{Index: new(uint64(5)), Data: data} }

func TestDecode(t *testing.T) {
	marshal := func(r *etcdserverpb.InternalRaftRequest) []byte {
		raw, err := proto.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	head := &etcdserverpb.RequestHeader{ID: 9, Username: "root"}
	nested := func(inner []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(marshal(&etcdserverpb.InternalRaftRequest{Header: head}), 2,
			protowire.BytesType), inner)
	}
	put := &etcdserverpb.InternalRaftRequest{Header: head, Put: &etcdserverpb.PutRequest{}}
	remove := &etcdserverpb.InternalRaftRequest{DeleteRange: &etcdserverpb.DeleteRangeRequest{}}
	attributes := v2("PUT", "/0/members/8e9e05c52164694d/attributes", `{"name":"m1","clientURLs":["http://h:1"]}`)
	for name, c := range map[string]struct {
		data []byte
		kind string
		v3   bool
	}{
		"Empty":        {nil, KindEmpty, false},
		"Put":          {marshal(put), "put", true},
		"DeleteRange":  {marshal(remove), "delete_range", true},
		"V2":           {v2("PUT", "/1/flannel", "x"), KindV2, false},
		"V2Sync":       {v2("SYNC", "", ""), KindV2, false},
		"V2Nested":     {nested(v2("DELETE", "/1/a", "")), KindV2, false},
		"V2Version":    {v2("PUT", "/0/version", "3.5.0"), KindV2 + " of etcd itself", true},
		"V2Attributes": {attributes, KindV2 + " of etcd itself", true},
		"OnlyAHeader":  {marshal(&etcdserverpb.InternalRaftRequest{Header: head}), KindUnknown, true},
		"NewField":     {protowire.AppendBytes(protowire.AppendTag(nil, 9999, protowire.BytesType), nil), KindUnknown, true},
	} {
		r, err := Decode(entryOf(c.data))
		if err != nil || r.Kind != c.kind || (r.V3 != nil) != c.v3 {
			t.Errorf("%s: %q, %v, want %q", name, r.Kind, err, c.kind)
		}
	}
	r, err := Decode(entryOf(attributes))
	if err != nil {
		t.Fatal(err)
	}
	var got etcdserverpb.InternalRaftRequest
	if err := proto.Unmarshal(r.V3, &got); err != nil {
		t.Fatal(err)
	}
	if a := got.ClusterMemberAttrSet; a.GetMember_ID() != 0x8e9e05c52164694d || a.MemberAttributes.Name != "m1" ||
		a.MemberAttributes.ClientUrls[0] != "http://h:1" {
		t.Errorf("attributes %v", &got)
	}
	for name, data := range map[string][]byte{
		"Garbage":       {0xff, 0xff, 0xff},
		"NoMember":      v2("PUT", "/0/members/xyz/attributes", "{}"),
		"NoAttributes":  v2("PUT", "/0/members/1/attributes", "none"),
		"PutIsNoRecord": protowire.AppendString(protowire.AppendTag(nil, 4, protowire.BytesType), "\xff\xff"),
	} {
		if r, err := Decode(entryOf(data)); err == nil {
			t.Errorf("%s: %+v, want an error", name, r)
		}
	}
}

// FuzzDecode: whatever an entry holds, it is no reason to panic.
func FuzzDecode(f *testing.F) {
	f.Add(v2("PUT", "/0/version", "3.5.0"))
	f.Add([]byte{0x12, 0x00})
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := Decode(entryOf(data)); err == nil && r.Kind == "" {
			t.Error("an entry without a kind")
		}
	})
}
