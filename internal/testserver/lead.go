package testserver

import (
	"cmp"
	"errors"
	"slices"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/etcd-backupd/backupd/internal/cluster"
)

// Lead makes the member with the lowest id the leader, unless it is.
func Lead(t testing.TB, s *cluster.Survey) {
	t.Helper()
	to := Lowest(s.Candidates)
	for _, c := range s.Candidates {
		if !c.Leader || c.MemberID == to.MemberID {
			continue
		}
		client, err := clientv3.New(clientv3.Config{Endpoints: []string{c.Endpoint}, Logger: zap.NewNop()})
		if err != nil {
			t.Fatal(err)
		}
		_, err = client.MoveLeader(t.Context(), uint64(to.MemberID))
		if err := errors.Join(err, client.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// Lowest returns the member with the lowest id.
func Lowest(all []cluster.Candidate) cluster.Candidate {
	return slices.MinFunc(all, func(a, b cluster.Candidate) int { return cmp.Compare(a.MemberID, b.MemberID) })
}
