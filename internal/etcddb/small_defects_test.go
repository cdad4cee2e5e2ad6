package etcddb_test

import (
	"errors"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/authpb"
	"go.etcd.io/etcd/server/v3/lease/leasepb"
	"google.golang.org/protobuf/proto"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/etcddb"
)

// smallDefect is damage outside the bucket of records.
type smallDefect struct {
	name   string
	want   string // in the error, after the bucket
	bucket string
	key    string
	value  string
	// starts are the versions of etcd that start all the same, and what they do then.
	starts, act string
}

const allVersions = "3.5 3.6 3.7"

func smallDefects(t testing.TB) []smallDefect {
	message := func(m proto.Message) string {
		b, err := proto.Marshal(m)
		must(t, err)
		return string(b)
	}
	const lease = "\x00\x00\x00\x00\x00\x00\x00\x07"
	return []smallDefect{
		{name: "User", want: `user "root": decode`, bucket: "authUsers", key: "root", value: "\xff"},
		{
			name: "UserOfAnotherType", want: `user "root": decode: field roles has another type`, bucket: "authUsers",
			key: "root", value: "\x0a\x04root\x18\x01", starts: "3.7", act: "the role is lost",
		},
		{
			name: "UserInside", want: `user "root": decode: field no_password has another type`, bucket: "authUsers",
			key: "root", value: "\x0a\x04root\x22\x02\x0a\x00", starts: "3.7", act: "logs in with an empty password",
		},
		{
			name: "OtherUser", want: `user "root": calls itself "toor"`, bucket: "authUsers", key: "root",
			value: message(&authpb.User{Name: []byte("toor")}), starts: allVersions, act: "root has no permissions",
		},
		{name: "Role", want: `role "viewer": decode`, bucket: "authRoles", key: "viewer", value: "\x12\x7f"},
		{
			name: "RoleInside", want: `role "viewer": decode: field key has another type`, bucket: "authRoles",
			key: "viewer", value: "\x0a\x06viewer\x12\x02\x10\x01", starts: "3.7", act: "a permission for another key",
		},
		{
			name: "OtherRole", want: `role "viewer": calls itself ""`, bucket: "authRoles", key: "viewer",
			starts: allVersions, act: "a role without its permissions",
		},
		{
			name: "AuthFlag", want: "authEnabled is 03", bucket: "auth", key: "authEnabled", value: "\x03",
			starts: allVersions, act: "auth is off",
		},
		{name: "AuthRevision", want: "authRevision has 4 bytes", bucket: "auth", key: "authRevision", value: "1234"},
		{
			name: "AuthKey", want: `key "authEnablec" is "authEnabled" with a damaged byte`, bucket: "auth",
			key: "authEnablec", value: "\x01", starts: allVersions, act: "auth is off",
		},
		{name: "Alarm", want: "alarm ff: decode", bucket: "alarm", key: "\xff"},
		{
			name: "AlarmOfAnotherType", want: "alarm 0807120101: decode: field alarm has another type", bucket: "alarm",
			key: "\x08\x07\x12\x01\x01", starts: "3.7", act: "the alarm is another one",
		},
		{name: "Lease", want: "lease 7: decode", bucket: "lease", key: lease, value: "\x08"},
		{
			name: "LeaseOfAnotherType", want: "lease 7: decode: field TTL has another type", bucket: "lease", key: lease,
			value: "\x08\x07\x12\x01\x3c", starts: "3.7", act: "ends at once, and deletes its keys",
		},
		{
			name: "LeaseWithoutLife", want: "lease 7: lives for 0 s", bucket: "lease", key: lease,
			value: message(&leasepb.Lease{ID: 7}), starts: allVersions, act: "ends at once, and deletes its keys",
		},
		{
			name: "LeaseForEver", want: "lease 7: lives for 99999999999 s", bucket: "lease", key: lease,
			value: message(&leasepb.Lease{ID: 7, TTL: 99999999999}), starts: allVersions, act: "ends at once",
		},
		{
			name: "OtherLease", want: "lease 7: calls itself 8", bucket: "lease", key: lease,
			value: message(&leasepb.Lease{ID: 8, TTL: 60}), starts: allVersions, act: "is there again after each revocation",
		},
		{
			name: "ClusterVersion", want: `clusterVersion "396.0" is not a version`, bucket: "cluster",
			key: "clusterVersion", value: "396.0", starts: "3.5", act: "reads it elsewhere",
		},
		{
			name: "ClusterPatch", want: `clusterVersion "3.7.1" is not a version`, bucket: "cluster",
			key: "clusterVersion", value: "3.7.1", starts: "3.5", act: "reads it elsewhere",
		},
		{name: "Downgrade", want: "downgrade: decode", bucket: "cluster", key: "downgrade", value: "{"},
		{
			name: "DowngradeToNowhere", want: `downgrade "" is not a version`, bucket: "cluster", key: "downgrade",
			value: `{"target-version":"","enabled":true}`,
		},
		{name: "Compaction", want: "finishedCompactRev: 78 is not a revision", bucket: "meta", key: "finishedCompactRev",
			value: "x"},
		{
			name: "StorageVersion", want: `storageVersion "3.9.0" contradicts`, bucket: "meta", key: "storageVersion",
			value: "3.9.0", starts: "3.5", act: "does not read it",
		},
		{
			name: "OldStorageVersion", want: "no etcd starts with it", bucket: "meta", key: "storageVersion",
			value: "3.4.0", starts: "3.5", act: "does not read it",
		},
		{
			name: "MemberWithoutURL", want: "member 1f: peer URLs: no valid URLs", bucket: "members", key: "1f",
			value: `{"id":31}`, starts: "3.5", act: "reads it elsewhere",
		},
		{
			name: "MemberURL", want: "member 1f: peer URLs: URL scheme must be", bucket: "members", key: "1f",
			value: `{"id":31,"peerURLs":["htt://127.0.0.1:1"]}`, starts: "3.5", act: "reads it elsewhere",
		},
	}
}

func (d smallDefect) put(tx *bolt.Tx) { store(tx, d.bucket, []byte(d.key), []byte(d.value)) }

// TestInspect_SmallDefects: HashKV does not cover them.
func TestInspect_SmallDefects(t *testing.T) {
	for _, d := range smallDefects(t) {
		_, err := etcddb.Inspect(t.Context(), build(t, d.put))
		if !errors.Is(err, backup.ErrCorrupt) || !strings.Contains(err.Error(), d.want) ||
			!strings.Contains(err.Error(), `bucket "`+d.bucket+`"`) {
			t.Errorf("%s: error %v, want ErrCorrupt, the bucket and %q", d.name, err, d.want)
		}
	}
	renamed := build(t, func(tx *bolt.Tx) {
		drop(tx, "authUsers")
		_, err := tx.CreateBucket([]byte("authVsers"))
		must(t, err)
	})
	_, err := etcddb.Inspect(t.Context(), renamed)
	if !errors.Is(err, backup.ErrCorrupt) || !strings.Contains(err.Error(), `"authVsers" is "authUsers"`) {
		t.Errorf("another name of a bucket: %v, want ErrCorrupt", err)
	}
}

// TestInspect_NotDefects: what no server minds, and what only a later one writes.
func TestInspect_NotDefects(t *testing.T) {
	path := build(t, func(tx *bolt.Tx) {
		store(tx, "meta", []byte("confState"), []byte("{"))
		store(tx, "meta", []byte("ofALaterVersion"), []byte("x"))
		store(tx, "meta", []byte("storageVersion"), []byte("3.9.0"))
		store(tx, "cluster", []byte("clusterVersion"), []byte("3.8.0"))
		store(tx, "cluster", []byte("downgrade"), []byte(`{"target-version":"3.8.0","enabled":true,"more":1}`))
		store(tx, "authUsers", []byte("u"), []byte("\x0a\x01u\x1a\x04gone\x7a\x01x")) // with a role that is gone
		store(tx, "alarm", []byte("\x10\x09"), nil)
		_, err := tx.CreateBucket([]byte("more"))
		must(t, err)
	})
	f, err := etcddb.Inspect(t.Context(), path)
	must(t, err)
	if etcddb.NewerWarning(f.StorageVersion, f.ClusterVersion) == "" || f.Users != 1 || len(f.Alarms) != 1 ||
		f.Alarms[0].Type != "ALARM(9)" {
		t.Errorf("facts %+v", f)
	}
}

// badRole is the role of a user that etcd 3.5 and 3.6 store and read. Names of users and
// of roles themselves are bytes: etcd 3.7 starts with them, and cannot list them.
func badRole(tx *bolt.Tx) {
	store(tx, "authUsers", []byte("u\xfe"), []byte("\x0a\x02u\xfe\x1a\x04bad\xff\x1a\x03two"))
	store(tx, "authRoles", []byte("bad\xff"), []byte("\x0a\x04bad\xff"))
	store(tx, "authRoles", []byte("two"), []byte("\x0a\x03two"))
}

// TestInspect_TextWithoutUTF8: etcd 3.5 and 3.6 start with it, and etcd 3.7 does not.
func TestInspect_TextWithoutUTF8(t *testing.T) {
	const found = `user "u\xfe" has the role "bad\xff", a name that is no UTF-8`
	with := func(bucket, key, value string) func(*bolt.Tx) {
		return func(tx *bolt.Tx) {
			badRole(tx)
			store(tx, bucket, []byte(key), []byte(value))
		}
	}
	for _, version := range []string{"3.5.0", "3.6.0"} {
		f, err := etcddb.Inspect(t.Context(), build(t, with("cluster", "clusterVersion", version)))
		if err != nil || f.Users != 1 || f.Roles != 2 || len(f.Cautions) != 1 ||
			!strings.HasPrefix(f.Cautions[0], found+": etcd 3.7 does not start with it") {
			t.Errorf("cluster version %s: %+v, %v, want a caution of the user and the role", version, f, err)
		}
	}
	for _, key := range [][2]string{{"cluster", "clusterVersion"}, {"meta", "storageVersion"}} {
		_, err := etcddb.Inspect(t.Context(), build(t, with(key[0], key[1], "3.7.0")))
		if !errors.Is(err, backup.ErrCorrupt) || !strings.Contains(err.Error(), found) {
			t.Errorf("%s 3.7.0: %v, want ErrCorrupt: this etcd has never started with it", key[1], err)
		}
	}
}

// TestInspect_Access: etcd starts with users that it does not make. The inspection says so.
func TestInspect_Access(t *testing.T) {
	const (
		lacks = "auth is enabled, and the user root lacks the role root"
		gone  = `user "u" has the role "gone", which is not there`
	)
	user := func(name string, roles ...string) func(*bolt.Tx) {
		value, err := proto.Marshal(&authpb.User{Name: []byte(name), Roles: roles})
		must(t, err)
		return func(tx *bolt.Tx) { store(tx, "authUsers", []byte(name), value) }
	}
	role := func(name string) func(*bolt.Tx) {
		value, err := proto.Marshal(&authpb.Role{Name: []byte(name)})
		must(t, err)
		return func(tx *bolt.Tx) { store(tx, "authRoles", []byte(name), value) }
	}
	raw := func(bucket, key, value string) func(*bolt.Tx) {
		return func(tx *bolt.Tx) { store(tx, bucket, []byte(key), []byte(value)) }
	}
	on := func(tx *bolt.Tx) { store(tx, "auth", []byte("authEnabled"), []byte{1}) }
	for _, c := range []struct {
		fill           []func(*bolt.Tx)
		doubt, caution string
	}{
		{[]func(*bolt.Tx){user("u")}, "", ""},
		{[]func(*bolt.Tx){raw("authUsers", "u\xfe", "\x0a\x02u\xfe")}, "", `the name of user "u\xfe" is no UTF-8`},
		{[]func(*bolt.Tx){raw("authRoles", "r\xfe", "\x0a\x02r\xfe")}, "", `the name of role "r\xfe" is no UTF-8`},
		{[]func(*bolt.Tx){on, user("root", "root")}, "", ""}, // etcd needs no role of that name
		{[]func(*bolt.Tx){on, user("root", "a", "root"), role("a")}, "", ""},
		{[]func(*bolt.Tx){on, user("root", "root", "a"), role("a")}, lacks, ""}, // not found there
		{[]func(*bolt.Tx){on}, lacks, ""},
		{[]func(*bolt.Tx){on, user("u", "root")}, lacks, ""},
		{[]func(*bolt.Tx){on, user("root", "roou"), role("root")}, lacks, `"root" has the role "roou", which is not there`},
		{[]func(*bolt.Tx){user("u", "a", "gone"), role("a")}, "", gone},
		{[]func(*bolt.Tx){on, user("root", "root"), user("u", "gone")}, "", gone},
	} {
		f, err := etcddb.Inspect(t.Context(), build(t, func(tx *bolt.Tx) {
			for _, fill := range c.fill {
				fill(tx)
			}
		}))
		must(t, err)
		doubts, cautions := strings.Join(f.Doubts, "\n"), strings.Join(f.Cautions, "\n")
		if (doubts == "") != (c.doubt == "") || !strings.Contains(doubts, c.doubt) ||
			(cautions == "") != (c.caution == "") || !strings.Contains(cautions, c.caution) {
			t.Errorf("doubts %q and cautions %q, want %q and %q", doubts, cautions, c.doubt, c.caution)
		}
	}
}
