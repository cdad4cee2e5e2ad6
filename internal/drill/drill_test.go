package drill_test

import (
	"errors"
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/drill"
)

func state() *drill.State {
	kv := &mvccpb.KeyValue{Key: []byte("k"), Value: []byte("v"), CreateRevision: 2, ModRevision: 3, Version: 2,
		Lease: 7}
	h := backup.HashKV{Hash: 1, Revision: 3, CompactRevision: -1}
	return &drill.State{Revision: 3, Hashes: []backup.HashKV{h, h}, Keys: []*mvccpb.KeyValue{kv}}
}

// Every field of every key counts, and every member's hash.
func TestDiff(t *testing.T) {
	if err := drill.Diff(state(), state()); err != nil {
		t.Errorf("equal states: %v", err)
	}
	for name, change := range map[string]func(*drill.State){
		"Hash":           func(s *drill.State) { s.Hashes[1].Hash++ },
		"Compacted":      func(s *drill.State) { s.Hashes[0].CompactRevision = 1 },
		"KeyMissing":     func(s *drill.State) { s.Keys = nil },
		"KeyMore":        func(s *drill.State) { s.Keys = append(s.Keys, s.Keys[0]) },
		"Key":            func(s *drill.State) { s.Keys[0].Key = []byte("x") },
		"Value":          func(s *drill.State) { s.Keys[0].Value = nil },
		"CreateRevision": func(s *drill.State) { s.Keys[0].CreateRevision++ },
		"ModRevision":    func(s *drill.State) { s.Keys[0].ModRevision++ },
		"Version":        func(s *drill.State) { s.Keys[0].Version++ },
		"Lease":          func(s *drill.State) { s.Keys[0].Lease = 0 },
	} {
		got := state()
		got.Keys[0] = proto.Clone(got.Keys[0]).(*mvccpb.KeyValue)
		change(got)
		if err := drill.Diff(state(), got); !errors.Is(err, backup.ErrCorrupt) {
			t.Errorf("%s: got %v, want a difference", name, err)
		}
	}
}
