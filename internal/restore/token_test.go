package restore_test

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/restore"
)

// TestNewPlan_TokenIsOfOneRestore tries the token of each restore for each of the
// others. Only its own may be planned with it.
func TestNewPlan_TokenIsOfOneRestore(t *testing.T) {
	type ask struct {
		origin  restore.Origin
		request restore.Request
	}
	other := origin()
	other.SHA256 = backup.Digest{1, 2, 4}
	bump := restore.Request{BumpRevision: 1_000_000_000, MarkCompacted: true}
	further := restore.Request{BumpRevision: 1_000_000_001, MarkCompacted: true}
	asks := map[string]ask{
		"Plain":    {origin(), restore.Request{}},
		"Snapshot": {other, restore.Request{}},
		"Bump":     {origin(), bump},
		"Further":  {origin(), further},
		"Alarms":   {origin(), restore.Request{ClearAlarms: true}},
		"NoSpace":  {origin(), restore.Request{ClearNoSpace: true}},
		"Members":  {origin(), restore.Request{InitialCluster: "m1=http://10.0.0.1:2380"}},
		"URLs":     {origin(), restore.Request{InitialCluster: "m1=http://10.0.0.1:2380,m2=http://10.0.0.9:2380"}},
	}
	for of, made := range asks {
		p, err := restore.NewPlan(made.origin, made.request)
		if err != nil {
			t.Fatal(err)
		}
		for in, used := range asks {
			r := used.request
			r.Token = p.Token
			again, err := restore.NewPlan(used.origin, r)
			var refused *backup.RefusedError
			switch {
			case in == of && (err != nil || again.ClusterID != p.ClusterID):
				t.Errorf("the token of %s for %s: %+v, %v", of, in, again, err)
			case in != of && !errors.As(err, &refused):
				t.Errorf("the token of %s for %s: error %v, want a refusal", of, in, err)
			}
		}
	}
}

// TestNewPlan_TokenSaysWhatDiffers finds in the error what the token was made for.
func TestNewPlan_TokenSaysWhatDiffers(t *testing.T) {
	p, _ := newPlan(t, restore.Request{BumpRevision: 7, MarkCompacted: true, ClearAlarms: true})
	other := origin()
	other.SHA256 = backup.Digest{9}
	for name, c := range map[string]struct {
		origin restore.Origin
		r      restore.Request
		want   restore.TokenError
	}{
		"Snapshot": {
			other, restore.Request{BumpRevision: 7, MarkCompacted: true, ClearAlarms: true},
			restore.TokenError{OtherSnapshot: true},
		},
		"Changes": {origin(), restore.Request{ClearAlarms: true}, restore.TokenError{OtherChanges: true}},
		"Members": {origin(), restore.Request{
			BumpRevision: 7, MarkCompacted: true, ClearAlarms: true, InitialCluster: "m1=http://10.0.0.1:2380",
		}, restore.TokenError{OtherMembers: true}},
	} {
		c.r.Token = p.Token
		_, err := restore.NewPlan(c.origin, c.r)
		var got *restore.TokenError
		if !errors.As(err, &got) {
			t.Errorf("%s: error %v", name, err)
			continue
		}
		c.want.Token, c.want.BumpRevision, c.want.ClearAlarms = p.Token, 7, true
		if *got != c.want {
			t.Errorf("%s: %+v, want %+v", name, *got, c.want)
		}
		if !got.Names(origin().SHA256) || got.Names(other.SHA256) {
			t.Errorf("%s: the token does not know the snapshot that it was made for", name)
		}
	}
}

// TestNewPlan_DamagedToken changes one character of a token. It must not be taken for
// the token of this restore.
func TestNewPlan_DamagedToken(t *testing.T) {
	r := restore.Request{BumpRevision: 70, MarkCompacted: true, ClearAlarms: true}
	p, err := restore.NewPlan(origin(), r)
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`^backupd-[a-z2-7]{16}-[a-z2-7]{20}-bump70-clear$`).MatchString(p.Token) {
		t.Errorf("token %s", p.Token)
	}
	for i := len("backupd-"); i < len(p.Token); i++ {
		to := "7"
		if p.Token[i] == '7' {
			to = "6"
		}
		r.Token = p.Token[:i] + to + p.Token[i+1:]
		got, err := restore.NewPlan(origin(), r)
		// A token that has lost its form is taken for one that was made up.
		if err == nil && (got.ClusterID == p.ClusterID || !strings.Contains(strings.Join(got.Notes, "\n"), r.Token)) {
			t.Errorf("%s, copied as %s, is accepted", p.Token, r.Token)
		}
	}
}

// TestNewPlan_MadeUpToken accepts it, and says that it proves nothing.
func TestNewPlan_MadeUpToken(t *testing.T) {
	const proves = "says nothing of the snapshot"
	for token, members := range map[string]string{
		"tok": "", "backupd-": "", "backupd-cy2s2tkvpladtlks": "", "etcd-cluster": "m1=http://10.0.0.1:2380",
	} {
		p, _ := newPlan(t, restore.Request{Token: token, InitialCluster: members})
		if said := strings.Contains(strings.Join(p.Notes, "\n"), proves); p.Token != token || said != (members == "") {
			t.Errorf("token %s of %d members: %s, notes %q", token, len(p.Members), p.Token, p.Notes)
		}
	}
	if p, _ := newPlan(t, restore.Request{}); strings.Contains(strings.Join(p.Notes, "\n"), proves) {
		t.Errorf("notes for a fresh token: %q", p.Notes)
	}
}

// TestNewPlan_TokenOfPlan: a member can be restored by the token of a plan without its file,
// and two plans of the same have two tokens that each seals its own.
func TestNewPlan_TokenOfPlan(t *testing.T) {
	r := restore.Request{BumpRevision: 5, MarkCompacted: true, ClearNoSpace: true}
	p, raw := newPlan(t, r)
	other, _ := newPlan(t, r)
	if !regexp.MustCompile(`-bump5-nospace-plan[a-z2-7]{12}$`).MatchString(p.Token) || other.Token == p.Token ||
		other.ClusterID == p.ClusterID {
		t.Errorf("tokens %s and %s", p.Token, other.Token)
	}
	again := r
	again.Token = p.Token
	if same, err := restore.NewPlan(origin(), again); err != nil || same.ClusterID != p.ClusterID {
		t.Errorf("by the token alone: %+v, %v", same, err)
	}
	again.Token = regexp.MustCompile(`-plan.*`).ReplaceAllString(p.Token, "-planaaaaaaaaaaaa")
	if _, err := restore.NewPlan(origin(), again); !errors.As(err, new(*restore.TokenError)) {
		t.Errorf("with the digest of another plan: %v", err)
	}
	if by, ours := restore.TokenBump(p.Token); by != 5 || !ours {
		t.Errorf("the token says a bump of %d, %v", by, ours)
	}
	swapped := strings.ReplaceAll(string(raw), p.Token, other.Token)
	if _, err := restore.ParsePlan([]byte(swapped)); !errors.As(err, new(*backup.RefusedError)) {
		t.Errorf("with the token of another plan: %v", err)
	}
}
