package restore_test

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
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

func newPlan(t testing.TB, r restore.Request) (*restore.Plan, []byte) {
	t.Helper()
	p, err := restore.NewPlan(origin(), r)
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
		clear bool
		alarm string
	}{{false, "--clear-alarms removes it"}, {true, "is cleared"}} {
		p, _ := newPlan(t, restore.Request{ClearAlarms: c.clear})
		notes := strings.Join(p.Notes, "\n")
		for _, want := range []string{c.alarm, "slow", "7 leases restart", "auth is enabled",
			"suspect: member m2 differs"} {
			if !strings.Contains(notes, want) {
				t.Errorf("%q is not in the notes:\n%s", want, notes)
			}
		}
	}
}

// TestPlan_RoundTrip reads plans again as they were written.
func TestPlan_RoundTrip(t *testing.T) {
	for name, r := range map[string]restore.Request{
		"Recorded": {},
		"Everything": {
			InitialCluster: "b=https://b.example:2380,a=http://10.0.0.9:2380", Token: "tok",
			BumpRevision: 1000, MarkCompacted: true, ClearAlarms: true,
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
		// Nothing but the token is left to chance.
		r.Token = p.Token
		if same, _ := newPlan(t, r); same.ClusterID != p.ClusterID || !reflect.DeepEqual(same.Members, p.Members) {
			t.Errorf("%s: planned again it is %+v, was %+v", name, same, p)
		}
	}
}

func TestParsePlan_Refuses(t *testing.T) {
	p, raw := newPlan(t, restore.Request{Token: "tok", BumpRevision: 5, MarkCompacted: true})
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
	}{
		"Empty":         {nil, "decode plan"},
		"Text":          {[]byte("restore snapshot"), "decode plan"},
		"Null":          {[]byte("null"), "no format"},
		"NoFormat":      {change(`"format": "backupd/plan/v1",`, ""), "no format"},
		"Cut":           {raw[:len(raw)-10], "decode plan"},
		"Twice":         {append(bytes.Clone(raw), raw...), "more data follows"},
		"TooLong":       {append(bytes.Clone(raw), make([]byte, restore.MaxPlanBytes)...), "more than"},
		"UnknownField":  {change(`"notes"`, `"hooks": ["rm -rf /"], "notes"`), "hooks"},
		"UnknownAsked":  {change(`"markCompacted"`, `"deleteOld": true, "markCompacted"`), "deleteOld"},
		"Token":         {change(`"token": "tok"`, `"token": "tok2"`), "does not follow"},
		"NoToken":       {change(`"token": "tok"`, `"token": ""`), "token"},
		"ClusterID":     {change(`"clusterID": "`+p.ClusterID.String(), `"clusterID": "1`), "does not follow"},
		"MemberID":      {change(p.Members[0].ID.String(), "1"), "does not follow"},
		"MemberMissing": {change(`"name": "m2"`, `"name": "m1"`), "does not follow"},
		"NoMemberName":  {change(`"name": "m2"`, `"name": ""`), "has no name"},
		"BumpAlone":     {change(`"markCompacted": true`, `"markCompacted": false`), "go together"},
		"BumpTooFar":    {change(`"bumpRevision": 5`, `"bumpRevision": 9223372036854775807`), "past the largest"},
		"Revision":      {change(`"revision": 42`, `"revision": -1`), "revision -1"},
		"NoBytes":       {change(`"bytes": 1048576`, `"bytes": 0`), "0 bytes"},
		"NoSource":      {change(origin().Name, ""), "has no name"},
	} {
		got, err := restore.ParsePlan(c.raw)
		if !errors.Is(err, backup.ErrCorrupt) || !strings.Contains(err.Error(), c.reason) {
			t.Errorf("%s: read as %+v, error %v, want one with %q", name, got, err, c.reason)
		}
	}
	_, err := restore.ParsePlan(change("backupd/plan/v1", "backupd/plan/v2"))
	if err == nil || errors.Is(err, backup.ErrCorrupt) || !strings.Contains(err.Error(), `"backupd/plan/v2"`) {
		t.Errorf("a plan of another version: %v, want an error that names its format", err)
	}
}

func FuzzParsePlan(f *testing.F) {
	_, raw := newPlan(f, restore.Request{Token: "tok"})
	f.Add(raw)
	_, raw = newPlan(f, restore.Request{InitialCluster: "a=http://1:1", Token: "t", BumpRevision: 1,
		MarkCompacted: true})
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := restore.ParsePlan(raw)
		if err != nil {
			return
		}
		first, err := p.Marshal()
		if err != nil {
			return // indented it is too long
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
