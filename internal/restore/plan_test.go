package restore_test

import (
	"bytes"
	"errors"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/restore"
)

// origin is a database with everything that a plan can speak of.
func origin() restore.Origin {
	return restore.Origin{
		Name: "snapshot 20261120T101500Z-r42-k7q2xd of cluster prod", Bytes: 1 << 20, Revision: 42,
		SHA256: backup.Digest{1, 2, 3},
		Members: []backup.Member{
			{
				ID: 1, Name: "m1", PeerURLs: []string{"http://10.0.0.1:2380"},
				ClientURLs: []string{"http://10.0.0.1:2379"},
			},
			{ID: 2, Name: "m2", PeerURLs: []string{"http://10.0.0.2:2380"}},
			{ID: 3, Name: "slow", PeerURLs: []string{"http://10.0.0.3:2380"}, Learner: true},
		},
		Alarms: []backup.Alarm{{MemberID: 1, Type: "NOSPACE"}}, AuthEnabled: true, Leases: 7,
		Warnings: []string{"suspect: member m2 differs"},
	}
}

var now = time.Date(2026, 11, 30, 6, 10, 0, 17, time.UTC)

func storedIn() restore.Stored {
	return restore.Stored{
		Repository: "s3://backups/etcd", RepositoryID: "abc", Cluster: "prod", Snapshot: "20261120T101500Z-r42-k7q2xd",
	}
}

// newPlan makes a plan, and seals it if it may have a fresh token.
func newPlan(t testing.TB, r restore.Request) (*restore.Plan, []byte) {
	t.Helper()
	p, err := restore.NewPlan(origin(), r)
	if err == nil && r.Token == "" {
		err = p.Seal(storedIn(), []restore.Place{{Member: "m1", DataDir: "/data", WALDir: "/log"}}, now)
	}
	if err != nil {
		t.Fatal(err)
	}
	raw, err := p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return p, raw
}

// TestPlan_Notes finds everything in the notes that an operator should know.
func TestPlan_Notes(t *testing.T) {
	for _, c := range []struct {
		request restore.Request
		alarm   string
	}{
		{restore.Request{}, "--clear-alarms removes it"},
		{restore.Request{ClearAlarms: true}, "alarm NOSPACE of the old member 1 is cleared"},
		{restore.Request{ClearNoSpace: true}, "alarm NOSPACE of the old member 1 is cleared"},
		{
			restore.Request{BumpRevision: 7, MarkCompacted: true, AutoBump: true, BumpReason: "clients wait"},
			"revision bumped by 7 because clients wait",
		},
	} {
		p, _ := newPlan(t, c.request)
		notes := strings.Join(p.Notes, "\n")
		for _, want := range []string{c.alarm, "slow", "7 leases restart", "auth is enabled",
			"suspect: member m2 differs"} {
			if !strings.Contains(notes, want) {
				t.Errorf("%q is not in the notes:\n%s", want, notes)
			}
		}
	}
}

// TestNewPlan_BumpTooFar leaves the new cluster revisions for all its life.
func TestNewPlan_BumpTooFar(t *testing.T) {
	const most = math.MaxInt64 - 1<<48
	for _, c := range []struct {
		revision backup.Revision
		bump     uint64
		fits     bool
	}{
		{42, 1_000_000_000, true},
		{42, most - 42, true},
		{42, most - 41, false},
		{42, math.MaxUint64, false},
		{most, 1, false},
		{most + 1, 1, false},
		{math.MaxInt64, 1, false},
		{most + 1, 0, true}, // it is so far already
	} {
		from := origin()
		from.Revision = c.revision
		_, err := restore.NewPlan(from, restore.Request{BumpRevision: c.bump, MarkCompacted: c.bump > 0})
		if fits := err == nil; fits != c.fits || !fits && !errors.As(err, new(*backup.RefusedError)) {
			t.Errorf("revision %d bumped by %d: %v", c.revision, c.bump, err)
		}
	}
}

// TestPlan_RoundTrip reads plans again as they were written.
func TestPlan_RoundTrip(t *testing.T) {
	for name, r := range map[string]restore.Request{
		"Recorded": {},
		"Everything": {
			InitialCluster: "b=https://b.example:2380,a=http://10.0.0.9:2380",
			BumpRevision:   1000, MarkCompacted: true, ClearAlarms: true,
		},
		"NoSpace": {
			ClearNoSpace: true, AutoBump: true, BumpRevision: 1 << 40, MarkCompacted: true, BumpReason: "it is so: #1",
		},
	} {
		p, raw := newPlan(t, r)
		again, err := restore.ParsePlan(raw)
		if err != nil {
			t.Errorf("%s: %v\n%s", name, err, raw)
			continue
		}
		if !reflect.DeepEqual(again, p) {
			t.Errorf("%s: read as\n%+v, written was\n%+v", name, again, p)
		}
		if at := again.PlaceOf("m1"); at.WALDir != "/log" || again.PlaceOf("m2") != (restore.Place{}) {
			t.Errorf("%s: m1 is at %+v", name, at)
		}
		// Nothing but the token is left to chance.
		r.Token = p.Token
		if same, _ := newPlan(t, r); same.ClusterID != p.ClusterID || !reflect.DeepEqual(same.Members, p.Members) {
			t.Errorf("%s: planned again it is %+v, was %+v", name, same, p)
		}
	}
}

// TestParsePlan_Edited: whatever is changed in a plan, it is refused, and nothing of it is
// silently left out.
func TestParsePlan_Edited(t *testing.T) {
	p, raw := newPlan(t, restore.Request{BumpRevision: 5, MarkCompacted: true, ClearNoSpace: true})
	for name, c := range map[string]struct{ from, to, reason string }{
		"Token":        {p.Token, "tok", "form of a fresh one"},
		"Characters":   {p.Token[:12], "backupd-aaaa", "other members"},
		"ClusterID":    {"clusterID: \"?" + p.ClusterID.String(), "clusterID: 1a", "does not follow"},
		"MemberID":     {"id: \"?" + p.Members[0].ID.String() + "\"?\n", "id: 1a\n", "does not follow"},
		"MemberName":   {"name: m2", "name: m1", "other members"},
		"NoMemberName": {"name: m2", "name: \"\"", "has no name"},
		"URL":          {"http://10.0.0.2:2380", "http://10.0.0.3:2380", "other members"},
		"SHA256":       {"sha256: \"?010203", "sha256: \"010204", "of another snapshot"},
		"NoSHA256":     {"sha256: \"?010203", "sha256: \"000000", "no sha256"},
		"Bump":         {"bumpRevision: 5", "bumpRevision: 6", "other changes"},
		"BumpAlone":    {"markCompacted: true", "markCompacted: false", "go together"},
		"BumpTooFar":   {"bumpRevision: 5", "bumpRevision: 9223372036854775807", "near to the largest"},
		"Alarms":       {"clearNoSpace: true", "clearNoSpace: false", "other changes"},
		"AllAlarms":    {"clearNoSpace: true", "clearAlarms: true", "other changes"},
		"Requested":    {"clearNoSpace: true", "clearNoSpace: true\n  token: x", "requests a token"},
		"Revision":     {"revision: 42", "revision: -1", "revision -1"},
		"NoBytes":      {"bytes: 1048576", "bytes: 0", "0 bytes"},
		"NoSource":     {"name: snapshot .*", "name: \"\"", "has no name"},
		"Size":         {"bytes: 1048576", "bytes: 1048577", "seals other content"},
		"Revision1":    {"revision: 42", "revision: 43", "seals other content"},
		"Place":        {"dataDir: /data", "dataDir: /data2", "seals other content"},
		"WAL":          {"walDir: /log", "walDir: /log2", "seals other content"},
		"Repository":   {"s3://backups/etcd", "s3://backups/other", "seals other content"},
		"Cluster":      {"cluster: prod", "cluster: test", "seals other content"},
		"Snapshot":     {"k7q2xd\n", "k7q2xe\n", "seals other content"},
		"CreatedAt":    {"06:10:00Z", "06:10:01Z", "seals other content"},
		"Note":         {"suspect: member m2 differs", "all is well", "seals other content"},
	} {
		from := regexp.MustCompile(c.from)
		if !from.Match(raw) {
			t.Fatalf("%s: %q is not in the plan:\n%s", name, c.from, raw)
		}
		got, err := restore.ParsePlan(from.ReplaceAll(raw, []byte(c.to)))
		if !errors.As(err, new(*backup.RefusedError)) || !strings.Contains(err.Error(), c.reason) {
			t.Errorf("%s: read as %+v, error %v, want one with %q", name, got, err, c.reason)
		}
	}
	// What is not content may be changed.
	spaced := "# carried to m2\n" + strings.ReplaceAll(string(raw), "\nsource:", "\n\n# from here\nsource:")
	if again, err := restore.ParsePlan([]byte(spaced)); err != nil || !reflect.DeepEqual(again, p) {
		t.Errorf("with comments: %v", err)
	}
}

// TestParsePlan_NotUnderstood: a file that this version does not fully understand is an
// error with its line.
func TestParsePlan_NotUnderstood(t *testing.T) {
	_, raw := newPlan(t, restore.Request{BumpRevision: 5, MarkCompacted: true})
	change := func(from, to string) []byte {
		t.Helper()
		if !bytes.Contains(raw, []byte(from)) {
			t.Fatalf("%q is not in the plan:\n%s", from, raw)
		}
		return bytes.ReplaceAll(raw, []byte(from), []byte(to))
	}
	for name, c := range map[string]struct {
		raw    []byte
		reason string
		line   bool
	}{
		"Empty":        {nil, "empty", false},
		"Text":         {[]byte("restore snapshot"), "want keys", true},
		"NoFormat":     {change("format: backupd/plan/v1\n", ""), `format ""`, false},
		"Newer":        {change("backupd/plan/v1", "backupd/plan/v2"), `"backupd/plan/v2"`, false},
		"Twice":        {append(append(bytes.Clone(raw), "---\n"...), raw...), "second document", true},
		"TooLong":      {append(bytes.Clone(raw), make([]byte, restore.MaxPlanBytes)...), "at most", false},
		"UnknownField": {change("\nnotes:", "\nhooks: [rm -rf /]\nnotes:"), "hooks", true},
		"UnknownAsked": {change("markCompacted", "deleteOld: true\n  markCompacted"), "deleteOld", true},
		"Case":         {change("\nnotes:", "\nTOKEN: x\nnotes:"), `"TOKEN" (the name of a key is exact`, true},
		"CaseOfPlace":  {change("dataDir: /data\n", "dataDir: /data\n    DataDir: /other\n"), `key "DataDir"`, true},
		"CaseAsked":    {change("bumpRevision: 5", "BumpRevision: 6\n  bumpRevision: 5"), `key "BumpRevision"`, true},
		"Anchor":       {change("token: ", "token: &t "), "anchors", true},
		"Kind":         {change("bumpRevision: 5", "bumpRevision: five"), "another kind", true},
		"ID":           {change("\nclusterID: ", "\nclusterID: z"), "hexadecimal", false},
	} {
		got, err := restore.ParsePlan(c.raw)
		var file *members.FileError
		if !errors.As(err, &file) || !strings.Contains(file.Problem, c.reason) || (file.At.Line > 0) != c.line {
			t.Errorf("%s: read as %+v, error %v, want one with %q", name, got, err, c.reason)
		}
	}
}

func FuzzParsePlan(f *testing.F) {
	_, raw := newPlan(f, restore.Request{})
	f.Add(raw)
	_, raw = newPlan(f, restore.Request{InitialCluster: "a=http://1:1", BumpRevision: 1, MarkCompacted: true})
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := restore.ParsePlan(raw)
		if err != nil {
			return
		}
		first, err := p.Marshal()
		if err != nil {
			return // with all of its words it is too long
		}
		again, err := restore.ParsePlan(first)
		if err != nil {
			t.Fatalf("%v\n%s\nwas read from\n%s", err, first, raw)
		}
		if second, err := again.Marshal(); err != nil || !bytes.Equal(second, first) {
			t.Fatalf("%v\n%s\nis read as\n%s", err, first, second)
		}
	})
}

// TestPlan_Quota says in time that the new servers would take no writes.
func TestPlan_Quota(t *testing.T) {
	const gib = 1 << 30
	for _, c := range []struct {
		bytes, quota int64
		want         string
	}{
		{gib, 0, ""}, {1800 << 20, 0, ""}, {1900 << 20, 0, "is 92% of etcd's default quota of 2147483648"},
		{3 * gib, 0, "--quota-backend-bytes=8589934592"}, {3 * gib, 8 * gib, ""},
		{7 * gib, 7 * gib, "is 100% of the old server's quota of 7516192768"}, {7 * gib, 7 * gib, "bytes=15032385536"},
	} {
		o := origin()
		o.Bytes, o.QuotaBytes = c.bytes, c.quota
		p, err := restore.NewPlan(o, restore.Request{})
		if err != nil {
			t.Fatal(err)
		}
		notes := strings.Join(p.Notes, "\n")
		if said := strings.Contains(notes, "NOSPACE would stop"); said != (c.want != "") || !strings.Contains(notes, c.want) {
			t.Errorf("%d bytes, quota %d: %q is not in\n%s", c.bytes, c.quota, c.want, notes)
		}
	}
}

// TestPlan_SameIdentity says in plain words if nobody can tell the new cluster from the old
// one.
func TestPlan_SameIdentity(t *testing.T) {
	const alike, joins = "cannot tell the two clusters apart", "joins the new cluster with its old data"
	for _, c := range []struct {
		name, initial string
		again         restore.Request
		want          []string
	}{
		{"Same", "a=http://10.0.0.1:2380,b=http://10.0.0.2:2380", restore.Request{Token: "prod"}, []string{alike, joins}},
		{"Alone", "a=http://10.0.0.1:2380", restore.Request{Token: "prod"}, []string{alike}},
		{"Fresh", "a=http://10.0.0.1:2380,b=http://10.0.0.2:2380", restore.Request{}, nil},
		{"OtherURLs", "a=http://10.0.0.1:2380", restore.Request{
			Token: "prod", InitialCluster: "a=http://10.0.0.9:2380",
		}, nil},
	} {
		before, _ := newPlan(t, restore.Request{Token: "prod", InitialCluster: c.initial})
		o := origin()
		o.Members = before.Members
		p, err := restore.NewPlan(o, c.again)
		if err != nil {
			t.Fatal(err)
		}
		notes := strings.Join(p.Notes, "\n")
		for _, text := range []string{alike, joins} {
			if got := strings.Contains(notes, text); got != slices.Contains(c.want, text) {
				t.Errorf("%s: %q is in the notes: %v\n%s", c.name, text, got, notes)
			}
		}
	}
}

// TestNewPlan_Localhost refuses a cluster that cannot work, unless that is allowed.
func TestNewPlan_Localhost(t *testing.T) {
	r := restore.Request{InitialCluster: "a=http://localhost:2380,b=http://10.0.0.2:2380"}
	var refused *backup.RefusedError
	if _, err := restore.NewPlan(origin(), r); !errors.As(err, &refused) || refused.Override != "--allow-localhost" {
		t.Errorf("%v, want a refusal", err)
	}
	o := origin()
	o.Members[0].PeerURLs = []string{"http://127.0.0.1:2380"} // as a careless cluster records it
	if _, err := restore.NewPlan(o, restore.Request{}); !errors.As(err, &refused) {
		t.Errorf("recorded: %v, want a refusal", err)
	}
	r.AllowLocalhost = true
	p, raw := newPlan(t, r)
	if again, err := restore.ParsePlan(raw); err != nil || !reflect.DeepEqual(again, p) {
		t.Errorf("allowed, and read again: %v", err)
	}
}
