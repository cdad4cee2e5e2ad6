package etcddb

import (
	"fmt"

	"go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/etcddb/buckets"
	"github.com/etcd-backupd/backupd/internal/secret"
)

// allBuckets are the buckets that every etcd since 3.5 creates when it starts.
var allBuckets = []string{
	buckets.Alarm, buckets.Auth, buckets.AuthRoles, buckets.AuthUsers, buckets.Cluster, keyBucket,
	buckets.Lease, buckets.Members, buckets.RemovedMembers, buckets.Meta,
}

// setContents takes over what the small buckets tell.
func (f *Facts) setContents(c *buckets.Contents) {
	f.ConsistentIndex, f.RaftTerm = c.ConsistentIndex, c.Term
	f.StorageVersion, f.ClusterVersion = c.StorageVersion, c.ClusterVersion
	f.AuthEnabled, f.Users, f.Roles, f.Leases = c.AuthEnabled, c.Users, c.Roles, c.Leases
	f.AuthRevision = c.AuthRevision
	f.Cautions, f.Doubts = c.Cautions, c.Doubts
	for _, a := range c.Alarms {
		f.Alarms = append(f.Alarms, backup.Alarm{MemberID: backup.MemberID(a.Member), Type: alarmType(a.Kind)})
	}
	for _, m := range c.Members {
		f.Members = append(f.Members, backup.Member{
			ID: backup.MemberID(m.ID), Name: m.Name, Learner: m.IsLearner,
			PeerURLs: secret.Without(m.PeerURLs), ClientURLs: secret.Without(m.ClientURLs),
		})
	}
	for _, id := range c.RemovedMembers {
		f.RemovedMembers = append(f.RemovedMembers, backup.MemberID(id))
	}
}

func alarmType(kind int32) string {
	switch t := etcdserverpb.AlarmType(kind); t {
	case etcdserverpb.AlarmType_NOSPACE, etcdserverpb.AlarmType_CORRUPT:
		return t.String()
	}
	return fmt.Sprintf("ALARM(%d)", kind)
}
