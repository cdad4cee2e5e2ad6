package cluster_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestSurvey_AdvertisedCredentials: a password in the URL that a member advertises goes to
// no manifest and no log.
func TestSurvey_AdvertisedCredentials(t *testing.T) {
	url := testserver.StartFakeMember(t, testserver.FakeMember{ID: 7,
		MemberList: func(context.Context, *pb.MemberListRequest) (*pb.MemberListResponse, error) {
			return &pb.MemberListResponse{
				Header: &pb.ResponseHeader{ClusterId: 1, MemberId: 7},
				Members: []*pb.Member{{ID: 7, PeerURLs: []string{"http://root:SECRET@10.0.0.1:2380?SECRET"},
					ClientURLs: []string{"http://root:SECRET@10.0.0.1:2379", "http://10.0.0.1:2379?password=SECRET"}}},
			}, nil
		}})
	s := survey(t, testserver.Connect(t, cluster.Config{Endpoints: []string{url}}))
	text := fmt.Sprint(s.Members)
	if !strings.Contains(text, "http://10.0.0.1:2379") ||
		!strings.Contains(text, "http://10.0.0.1:2380") || strings.Contains(text, "SECRET") {
		t.Errorf("got %s, %v", text, s.MembersErr)
	}
}
