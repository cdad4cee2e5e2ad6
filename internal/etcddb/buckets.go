package etcddb

import (
	"encoding/binary"
	"encoding/json"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// The buckets and keys of etcd that this package reads or writes
// (etcd server/storage/schema/bucket.go).
const (
	metaBucket           = "meta"
	alarmBucket          = "alarm"
	clusterBucket        = "cluster"
	membersBucket        = "members"
	removedMembersBucket = "members_removed"

	scheduledCompactKey = "scheduledCompactRev"
	finishedCompactKey  = "finishedCompactRev"
	consistentIndexKey  = "consistent_index"
	termKey             = "term"
	storageVersionKey   = "storageVersion"
	clusterVersionKey   = "clusterVersion"
	authEnabledKey      = "authEnabled"
)

// allBuckets are the buckets that every etcd since 3.5 creates when it starts.
var allBuckets = []string{
	alarmBucket, "auth", "authRoles", "authUsers", clusterBucket, keyBucket,
	"lease", membersBucket, removedMembersBucket, metaBucket,
}

// reader returns the function that reads the entries of the named bucket. Unknown
// buckets, of a later etcd, are only hashed.
func (f *Facts) reader(name string) func(*element) error {
	switch name {
	case metaBucket:
		return f.readMeta
	case alarmBucket:
		return f.readAlarm
	case clusterBucket:
		return f.readCluster
	case membersBucket:
		return f.readMember
	case removedMembersBucket:
		return f.readRemovedMember
	case "lease":
		return f.readLease
	case "auth":
		return func(e *element) error {
			if string(e.key) == authEnabledKey {
				f.AuthEnabled = len(e.value) == 1 && e.value[0] == 1
			}
			return nil
		}
	case "authUsers":
		return func(*element) error { f.Users++; return nil }
	case "authRoles":
		return func(*element) error { f.Roles++; return nil }
	}
	return func(*element) error { return nil }
}

func (f *Facts) readMeta(e *element) error {
	var number *uint64
	switch string(e.key) {
	case consistentIndexKey:
		number = &f.ConsistentIndex
	case termKey:
		number = &f.RaftTerm
	case storageVersionKey:
		return readVersion(e, &f.StorageVersion)
	default:
		return nil
	}
	if len(e.value) != 8 {
		return backup.Corruptf("%s has %d bytes instead of 8", e.key, len(e.value))
	}
	*number = binary.BigEndian.Uint64(e.value)
	return nil
}

func (f *Facts) readCluster(e *element) error {
	if string(e.key) == clusterVersionKey {
		return readVersion(e, &f.ClusterVersion)
	}
	return nil
}

func readVersion(e *element, to *string) error {
	for _, c := range e.value {
		if c != '.' && (c < '0' || c > '9') {
			return backup.Corruptf("%s %q is not a version", e.key, clip(e.value))
		}
	}
	*to = string(e.value)
	return nil
}

// readAlarm decodes an etcdserverpb.AlarmMember, which is the key; the value
// is empty.
func (f *Facts) readAlarm(e *element) error {
	alarm, kind := backup.Alarm{}, uint64(0)
	for b := e.key; len(b) > 0; {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return backup.Corruptf("alarm %x: decode: %w", clip(e.key), protowire.ParseError(n))
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
			return backup.Corruptf("alarm %x: decode: %w", clip(e.key), protowire.ParseError(n))
		}
		if v, m := protowire.ConsumeVarint(b[:n]); typ == protowire.VarintType && m == n {
			switch num {
			case 1:
				alarm.MemberID = backup.MemberID(v)
			case 2:
				kind = v
			}
		}
		b = b[n:]
	}
	switch kind {
	case 1:
		alarm.Type = "NOSPACE"
	case 2:
		alarm.Type = "CORRUPT"
	default:
		alarm.Type = fmt.Sprintf("ALARM(%d)", kind)
	}
	f.Alarms = append(f.Alarms, alarm)
	return nil
}

// readMember decodes a membership.Member. etcd stores it as JSON; the key is the id
// in hexadecimal.
func (f *Facts) readMember(e *element) error {
	id, err := memberID(e.key)
	if err != nil {
		return err
	}
	var m struct {
		ID         uint64   `json:"id"`
		Name       string   `json:"name"`
		PeerURLs   []string `json:"peerURLs"`
		ClientURLs []string `json:"clientURLs"`
		IsLearner  bool     `json:"isLearner"`
	}
	if err := json.Unmarshal(e.value, &m); err != nil {
		return backup.Corruptf("member %s: decode: %w", id, err)
	}
	if m.ID != uint64(id) {
		return backup.Corruptf("member %s: calls itself %x", id, m.ID)
	}
	f.Members = append(f.Members, backup.Member{
		ID: id, Name: m.Name, PeerURLs: m.PeerURLs, ClientURLs: m.ClientURLs, Learner: m.IsLearner,
	})
	return nil
}

func (f *Facts) readRemovedMember(e *element) error {
	id, err := memberID(e.key)
	if err != nil {
		return err
	}
	f.RemovedMembers = append(f.RemovedMembers, id)
	return nil
}

func memberID(key []byte) (id backup.MemberID, err error) {
	if err := id.UnmarshalText(clip(key)); err != nil {
		return 0, backup.Corruptf("member key %q: %w", clip(key), err)
	}
	return id, nil
}

// readLease counts leases. A server panics at boot if it cannot decode one.
func (f *Facts) readLease(e *element) error {
	if len(e.key) != 8 {
		return backup.Corruptf("lease key %x has %d bytes instead of 8", clip(e.key), len(e.key))
	}
	for b := e.value; len(b) > 0; {
		_, _, n := protowire.ConsumeField(b)
		if n < 0 {
			return backup.Corruptf("lease %x: decode: %w", e.key, protowire.ParseError(n))
		}
		b = b[n:]
	}
	f.Leases++
	return nil
}
