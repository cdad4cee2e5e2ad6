// Package buckets decodes the small buckets of an etcd database: all but the one with
// the records. HashKV does not cover them, so damage there shows nowhere else.
//
// It decodes them with etcd's own types, and as strictly as the strictest of etcd 3.5,
// 3.6 and 3.7. An error is an entry over which a server ends at each start, or that it
// reads as something that nobody has ever stored. What servers do not read is not
// judged, and neither is an entry that an etcd of a later version may add.
package buckets

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// The buckets that have entries this package decodes.
const (
	Meta           = "meta"
	Alarm          = "alarm"
	Auth           = "auth"
	AuthRoles      = "authRoles"
	AuthUsers      = "authUsers"
	Cluster        = "cluster"
	Lease          = "lease"
	Members        = "members"
	RemovedMembers = "members_removed"
)

// The keys of the buckets that have only these.
const (
	ConsistentIndex  = "consistent_index"
	Term             = "term"
	ConfState        = "confState"
	StorageVersion   = "storageVersion"
	ScheduledCompact = "scheduledCompactRev"
	FinishedCompact  = "finishedCompactRev"

	authEnabled    = "authEnabled"
	authRevision   = "authRevision"
	clusterVersion = "clusterVersion"
	downgrade      = "downgrade"
)

// fixed are the buckets whose keys etcd looks up by name. "" are the buckets
// themselves.
var fixed = map[string][]string{
	"":      {Meta, Alarm, Auth, AuthRoles, AuthUsers, Cluster, Lease, Members, RemovedMembers, "key"},
	Meta:    {ConsistentIndex, Term, ConfState, StorageVersion, ScheduledCompact, FinishedCompact},
	Auth:    {authEnabled, authRevision},
	Cluster: {clusterVersion, downgrade},
}

// Contents is what the small buckets tell.
type Contents struct {
	ConsistentIndex, Term uint64
	// ScheduledCompact and FinishedCompact are revisions, or 0.
	ScheduledCompact, FinishedCompact int64

	// StorageVersion is empty before etcd 3.6.
	StorageVersion string
	// ClusterVersion is the version that all members agreed on.
	ClusterVersion string

	AuthEnabled          bool
	AuthRevision         uint64 // counts each change of users and roles
	Users, Roles, Leases int64

	Alarms         []MemberAlarm
	Members        []Member
	RemovedMembers []uint64

	// Cautions say what is no damage, and what people should know before a restore.
	Cautions []string
	// Doubts say what no etcd of today stores, and what it starts with all the same.
	Doubts []string

	access access
	names  map[string][]string // bucket to keys, of the fixed ones
}

// Bucket must be called once for each bucket of the database.
func (c *Contents) Bucket(name string) { c.name("", name) }

// Read decodes one entry of a bucket. An error names the key.
func (c *Contents) Read(bucket string, key, value []byte) error {
	if _, ok := fixed[bucket]; ok && bucket != "" {
		c.name(bucket, string(key))
	}
	switch bucket {
	case Meta:
		return c.readMeta(string(key), value)
	case Cluster:
		return c.readCluster(string(key), value)
	case Auth:
		return c.readAuth(string(key), value)
	case AuthUsers:
		c.Users++
		return c.access.readUser(key, value)
	case AuthRoles:
		c.Roles++
		return c.access.readRole(key, value)
	case Alarm:
		return c.readAlarm(key)
	case Lease:
		return c.readLease(key, value)
	case Members:
		return c.readMember(key, value)
	case RemovedMembers:
		return c.readRemovedMember(key)
	}
	return nil
}

// Finish judges what takes all entries to see. An error names bucket and key.
func (c *Contents) Finish() error {
	for bucket, known := range fixed {
		if err := c.misspelt(bucket, known); err != nil {
			return err
		}
	}
	if err := c.checkVersions(); err != nil {
		return err
	}
	if c.AuthEnabled && !c.access.hasRoot {
		c.Doubts = append(c.Doubts, "auth is enabled, and the user root lacks the role root: etcd does not allow that, so "+
			"something has damaged the database")
	}
	var err error
	c.Cautions, err = c.access.check(c.StorageVersion, c.ClusterVersion)
	return err
}

func (c *Contents) name(bucket, key string) {
	if c.names == nil {
		c.names = map[string][]string{}
	}
	// A bucket with millions of other keys is not etcd's, and is not remembered.
	if len(c.names[bucket]) < 1000 {
		c.names[bucket] = append(c.names[bucket], key)
	}
}

// misspelt finds a name that is one byte away from one that etcd looks up and does not
// find. A server would go on without its users, its leases or its compact revision.
func (c *Contents) misspelt(bucket string, known []string) error {
	for _, got := range c.names[bucket] {
		if slices.Contains(known, got) {
			continue
		}
		for _, want := range known {
			if slices.Contains(c.names[bucket], want) || !oneByteApart(got, want) {
				continue
			}
			if bucket == "" {
				return fmt.Errorf("bucket %q is %q with a damaged byte", got, want)
			}
			return fmt.Errorf("bucket %q: key %q is %q with a damaged byte", bucket, got, want)
		}
	}
	return nil
}

func oneByteApart(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	apart := 0
	for i := range len(a) {
		if a[i] != b[i] {
			apart++
		}
	}
	return apart == 1
}

func (c *Contents) readMeta(key string, value []byte) (err error) {
	switch key {
	case ConsistentIndex:
		c.ConsistentIndex, err = number(key, value)
	case Term:
		c.Term, err = number(key, value)
	case ScheduledCompact:
		c.ScheduledCompact, err = revision(key, value)
	case FinishedCompact:
		c.FinishedCompact, err = revision(key, value)
	case StorageVersion:
		// etcd 3.6 upgrades by way of an empty version.
		if c.StorageVersion = string(value); len(value) > 0 {
			_, err = parseVersion(key, c.StorageVersion)
		}
	}
	return err
}

// number decodes what etcd stores as eight bytes. It panics over fewer.
func number(key string, value []byte) (uint64, error) {
	if len(value) != 8 {
		return 0, fmt.Errorf("%s has %d bytes instead of 8", key, len(value))
	}
	return binary.BigEndian.Uint64(value), nil
}

// revision decodes a revision as records have it, main and sub with a '_' between them
// (etcd server/storage/mvcc/revision.go). Only the first is used.
func revision(key string, value []byte) (int64, error) {
	if len(value) != 17 || value[8] != '_' {
		return 0, fmt.Errorf("%s: %x is not a revision", key, clip(value))
	}
	main, sub := int64(binary.BigEndian.Uint64(value)), int64(binary.BigEndian.Uint64(value[9:]))
	if main < 1 || sub < 0 {
		return 0, fmt.Errorf("%s: %d_%d is not a revision", key, main, sub)
	}
	return main, nil
}

// readAuth refuses a flag that is neither on nor off: a server takes it for off.
func (c *Contents) readAuth(key string, value []byte) (err error) {
	switch key {
	case authEnabled:
		if len(value) != 1 || value[0] > 1 {
			return fmt.Errorf("%s is %x instead of 00 or 01", key, clip(value))
		}
		c.AuthEnabled = value[0] == 1
	case authRevision:
		c.AuthRevision, err = number(key, value)
	}
	return err
}

// clip shortens bytes for an error.
func clip(b []byte) []byte { return b[:min(len(b), 40)] }
