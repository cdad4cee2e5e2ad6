// Package entry says what an entry of etcd's log asks for, and whether a database shows that it
// has come of the entries of a log.
package entry

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/membershippb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Kinds of entries that are no request of the v3 API by themselves.
const (
	KindEmpty   = "empty" // a new leader begins with one
	KindMember  = "member change"
	KindV2      = "v2 request"
	KindUnknown = "unknown"
)

// Silent reports whether entries of a kind change nothing that is stored.
func Silent(kind string) bool { return silent[kind] }

// Changes lists the kinds of entries that change something, with their numbers.
func Changes(kinds map[string]int64) []string {
	var out []string
	for k, n := range kinds {
		if !Silent(k) {
			out = append(out, fmt.Sprintf("%d %s", n, k))
		}
	}
	slices.Sort(out)
	return out
}

// silent are such kinds. Names are those of the fields of etcd's InternalRaftRequest.
var silent = map[string]bool{
	KindEmpty: true, "range": true, "authenticate": true, "auth_status": true,
	"auth_user_get": true, "auth_user_list": true, "auth_role_get": true, "auth_role_list": true,
	"downgrade_version_test": true,
}

// Request is what an entry asks for.
type Request struct {
	Kind string
	// V3 is what etcd of today applies. A v2 request of an older one that names a member or
	// sets the version of the cluster has become one.
	V3 []byte
}

// Decode says what an entry asks for. It refuses one that nobody understands.
func Decode(e *raftpb.Entry) (Request, error) {
	switch {
	case e.GetType() == raftpb.EntryConfChange:
		return Request{Kind: KindMember}, nil
	case e.GetType() != raftpb.EntryNormal:
		return Request{Kind: KindUnknown}, nil
	case len(e.Data) == 0:
		return Request{Kind: KindEmpty}, nil
	}
	old, isOld, err := decodeV2(e.Data)
	if err != nil {
		return Request{}, err
	}
	if isOld {
		return old.request()
	}
	var r etcdserverpb.InternalRaftRequest
	if err := proto.Unmarshal(e.Data, &r); err != nil {
		return Request{}, err
	}
	kind := KindUnknown // a field that a newer etcd has added
	r.ProtoReflect().Range(func(f protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		if f.Kind() != protoreflect.MessageKind || f.Name() == "header" {
			return true
		}
		kind = string(f.Name())
		return false
	})
	return Request{kind, e.Data}, nil
}

// TooOld reports whether a version, such as 3.4, is older than the first whose log is known.
func TooOld(version string) bool {
	major, minor, ok := strings.Cut(version, ".")
	n, err := strconv.Atoi(minor)
	return ok && err == nil && (major < "3" || major == "3" && n < 5)
}

// requestV2 is a request of the v2 API. Until 3.5 etcd wrote those about its members, too.
type requestV2 struct {
	id                  uint64
	method, path, value string
}

// decodeV2 reads a request of the v2 API, bare or in the second field of a request of
// the v3 API, and reports whether it is one. A bare one has text where the other has a message,
// and a number in its fifth field, always.
func decodeV2(raw []byte) (r requestV2, is bool, err error) {
	texts, bare := map[protowire.Number][]byte{}, false
	for rest := raw; len(rest) > 0; {
		field, kind, n := protowire.ConsumeTag(rest)
		if n < 0 {
			return r, false, protowire.ParseError(n)
		}
		rest = rest[n:]
		if n = protowire.ConsumeFieldValue(field, kind, rest); n < 0 {
			return r, false, protowire.ParseError(n)
		}
		switch {
		case kind == protowire.BytesType:
			texts[field], _ = protowire.ConsumeBytes(rest)
		case field == 1 && kind == protowire.VarintType:
			r.id, _ = protowire.ConsumeVarint(rest)
		case field == 5 && kind == protowire.VarintType:
			bare = true
		}
		rest = rest[n:]
	}
	if inner, ok := texts[2]; ok && !bare {
		return decodeV2(inner)
	}
	r.method, r.path, r.value = string(texts[2]), string(texts[3]), string(texts[4])
	return r, bare, nil
}

// request returns the request of the v3 API that does the same, as etcd 3.6 does: there is one
// for what etcd itself has stored in the old way.
func (r requestV2) request() (Request, error) {
	v3 := &etcdserverpb.InternalRaftRequest{Header: &etcdserverpb.RequestHeader{ID: r.id}}
	folder, last := path.Split(r.path)
	switch {
	case r.method != "PUT":
		return Request{Kind: KindV2}, nil
	case r.path == "/0/version":
		v3.ClusterVersionSet = &membershippb.ClusterVersionSetRequest{Ver: r.value}
	case path.Dir(path.Clean(folder)) == membership.StoreMembersPrefix && last == "attributes":
		id, err := strconv.ParseUint(path.Base(folder), 16, 64)
		var a membership.Attributes
		if err == nil {
			err = json.NewDecoder(strings.NewReader(r.value)).Decode(&a)
		}
		if err != nil {
			return Request{}, fmt.Errorf("attributes of a member: %w", err)
		}
		v3.ClusterMemberAttrSet = &membershippb.ClusterMemberAttrSetRequest{
			Member_ID: id, MemberAttributes: &membershippb.Attributes{Name: a.Name, ClientUrls: a.ClientURLs},
		}
	default:
		return Request{Kind: KindV2}, nil
	}
	raw, err := proto.Marshal(v3)
	return Request{Kind: KindV2 + " of etcd itself", V3: raw}, err
}
