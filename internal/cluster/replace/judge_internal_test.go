package replace

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
)

// scene is a cluster of m1 (1, the leader), m2 (2, dead) and m3 (3), and an empty folder of m2.
type scene struct {
	state
	o Options
	f *folders
}

func newScene(t *testing.T) *scene {
	t.Helper()
	f, err := newFolders(filepath.Join(t.TempDir(), "m2"), "")
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{f: f, o: Options{Name: "m2", DataDir: f.dataDir, DryRun: true}}
	s.o.setDefaults()
	s.clusterID = 9
	for id, name := range []string{"", "m1", "m2", "m3"} {
		if id > 0 {
			s.members = append(s.members, backup.Member{
				ID: backup.MemberID(id), Name: name, PeerURLs: []string{"http://127.0.0.1:" + string(rune('0'+id))},
			})
		}
	}
	s.seen = map[backup.MemberID]cluster.Candidate{1: {MemberID: 1, Leader: true}, 3: {MemberID: 3}}
	s.silent = map[backup.MemberID]error{}
	return s
}

// new makes the member m2 the new one, with the id 5, that may be a learner and may have a name.
func (s *scene) new(learner, named bool) {
	m := backup.Member{ID: 5, PeerURLs: s.members[1].PeerURLs, Learner: learner}
	if named {
		m.Name = "m2"
	}
	s.members[1] = m
	s.note = &note{ClusterID: 9, Member: "m2", ReplacedID: 2, PeerURLs: m.PeerURLs}
}

// five makes it a cluster of five, in which m4 (6) and m5 (7) answer.
func (s *scene) five() {
	for id, name := range map[backup.MemberID]string{6: "m4", 7: "m5"} {
		s.members = append(s.members, backup.Member{ID: id, Name: name})
		s.seen[id] = cluster.Candidate{MemberID: id}
	}
}

func (s *scene) judge(t *testing.T) (Step, *Report, error) {
	t.Helper()
	a := &asker{o: &s.o, folders: s.f}
	if err := a.identify(&s.state); err != nil {
		return "", nil, err
	}
	report := &Report{}
	step, err := (&judge{o: &s.o, folders: s.f, report: report}).next(t.Context(), &s.state)
	return step, report, err
}

// TestNext: what the cluster and the folder say decides what is done next.
func TestNext(t *testing.T) {
	gone := func(s *scene) { s.members = slices.Delete(s.members, 1, 2); s.note = &note{ClusterID: 9, Member: "m2"} }
	old := contents{entries: []string{"member"}, member: 2, cluster: 9}
	own := contents{entries: []string{"member"}, member: 5, cluster: 9}
	broken := contents{entries: []string{"member"}}
	for name, c := range map[string]struct {
		change func(*scene)
		want   Step
	}{
		"Dead":                  {func(*scene) {}, Remove},
		"DeadWithData":          {func(s *scene) { s.held = old }, Remove},
		"KilledBeforeRemoval":   {func(s *scene) { s.note = &note{ClusterID: 9, Member: "m2", ReplacedID: 2} }, Remove},
		"RemovedWithData":       {func(s *scene) { gone(s); s.held = old }, Aside},
		"Removed":               {gone, Add},
		"RemovedByHand":         {func(s *scene) { gone(s); s.note = nil; s.o.Removed = true }, Add},
		"Added":                 {func(s *scene) { s.new(true, false) }, Start},
		"AddedWithOldData":      {func(s *scene) { s.new(true, false); s.held = old }, Aside},
		"AddedAndStarting":      {func(s *scene) { s.new(true, false); s.held = broken; s.held.used = true }, Start},
		"AddedAndDataBroken":    {func(s *scene) { s.new(true, false); s.held = broken }, Remove},
		"Started":               {func(s *scene) { s.new(true, true); s.held = own }, Start},
		"StartedAndDataGone":    {func(s *scene) { s.new(true, true) }, Remove},
		"StartedAndOldDataBack": {func(s *scene) { s.new(true, true); s.held = old }, Remove},
		"Answers": {func(s *scene) {
			s.new(true, true)
			s.seen[5] = cluster.Candidate{MemberID: 5, Learner: true}
		}, Promote},
		"Votes": {func(s *scene) {
			s.new(false, true)
			s.seen[5] = cluster.Candidate{MemberID: 5}
		}, Compare},
		"VotesAndIsDown":   {func(s *scene) { s.new(false, true); s.held = own }, Start},
		"VotesAndDiffered": {func(s *scene) { s.new(false, true); s.held = own; s.note.Differs = "m1" }, Remove},
		"VotesAndDataGone": {func(s *scene) { s.new(false, true) }, Remove},
		"MoreDownAllowed":  {func(s *scene) { s.five(); delete(s.seen, 3); s.o.AllowMoreDown = true }, Remove},
		"AnswersAllowed": {func(s *scene) {
			s.seen[2] = cluster.Candidate{MemberID: 2}
			s.o.AllowRunning = true
		}, Remove},
		"OwnCorruptAlarm": {func(s *scene) { s.alarms = []backup.Alarm{{MemberID: 2, Type: "CORRUPT"}} }, Remove},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			c.change(s)
			step, report, err := s.judge(t)
			if err != nil || step != c.want {
				t.Errorf("got %q, %v, want %q", step, err, c.want)
			}
			if len(s.alarms) > 0 && len(report.Notes) != 1 {
				t.Errorf("the notes are %v", report.Notes)
			}
		})
	}
}

// TestAfresh: a member that was replaced once, and is down, is started; the way to replace
// it again is told, with the age of what was begun.
func TestAfresh(t *testing.T) {
	s := newScene(t)
	s.new(false, true)
	s.held = contents{entries: []string{"member"}, member: 5, cluster: 9}
	s.note.Begun = time.Now().Add(-3 * time.Hour)
	step, _, err := s.judge(t)
	text := afresh(s.f, &s.state, step)
	fresh := "remove " + s.f.notePath()
	if err != nil || step != Start || !strings.Contains(text, "3h0m") || !strings.Contains(text, fresh) {
		t.Errorf("%q, %v: %s", step, err, text)
	}
	if text := afresh(s.f, &s.state, Remove) + afresh(s.f, &newScene(t).state, Start); text != "" {
		t.Error(text)
	}
}

// TestDescribe_Missing: a folder without data is told before the member is removed.
func TestDescribe_Missing(t *testing.T) {
	s := newScene(t)
	step, _, err := s.judge(t)
	if text := describe("m2", s.f, &s.state, step); err != nil || !strings.Contains(text, s.f.dataDir+" does not exist") {
		t.Errorf("%v: %s", err, text)
	}
	s.held = contents{entries: []string{"member"}, member: 2, cluster: 9}
	if text := describe("m2", s.f, &s.state, step); strings.Contains(text, "BEWARE") {
		t.Error(text)
	}
}

// TestNext_Refused: a change that could do harm is refused, with the way out.
func TestNext_Refused(t *testing.T) {
	file := func(t *testing.T, path string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		change          func(*testing.T, *scene)
		words, override string
	}{
		"Alive": {func(_ *testing.T, s *scene) {
			s.seen[2] = cluster.Candidate{MemberID: 2, Endpoint: "e2"}
		}, "member m2 (2) is not dead: it answers at e2", "--allow-running"},
		"MoreDown": {func(_ *testing.T, s *scene) {
			s.five()
			delete(s.seen, 3)
		}, "besides m2, member m3 (3)", "--allow-more-down"},
		"NoQuorumLeft": {func(_ *testing.T, s *scene) { // three of five run, and one of the three is named
			s.five()
			delete(s.seen, 3)
			delete(s.seen, 7)
			s.seen[2] = cluster.Candidate{MemberID: 2}
			s.o.AllowMoreDown, s.o.AllowRunning = true, true
		}, "2 of the 4 other voting members answer, and a quorum of them is 3", ""},
		"NoQuorumOfTwo": {func(_ *testing.T, s *scene) {
			delete(s.seen, 3)
			s.seen[2] = cluster.Candidate{MemberID: 2}
			s.o.AllowRunning = true
		}, "1 of the 2 other voting members answer, and a quorum of them is 2", ""},
		"OnlyOne": {func(_ *testing.T, s *scene) {
			s.members = s.members[1:2]
			s.seen = map[backup.MemberID]cluster.Candidate{2: {MemberID: 2, Leader: true}}
			s.o.AllowRunning = true
		}, "member m2 (2) is the only one that votes", ""},
		"Learner": {func(_ *testing.T, s *scene) {
			s.members = append(s.members, backup.Member{ID: 7, Name: "x", Learner: true})
		}, "is being changed: member x (7) is a learner", ""},
		"Joining": {func(_ *testing.T, s *scene) {
			s.members = append(s.members, backup.Member{ID: 7, PeerURLs: []string{"http://x:1"}})
		}, "has not joined yet", ""},
		"Corrupt": {func(_ *testing.T, s *scene) {
			s.alarms = []backup.Alarm{{MemberID: 3, Type: "CORRUPT"}}
		}, "a CORRUPT alarm is active for member 3", ""},
		"Unknown": {func(_ *testing.T, s *scene) { s.o.Name = "m9" }, "has no member m9", "--removed"},
		"UnknownAndAdded": {func(_ *testing.T, s *scene) {
			s.new(true, false)
			s.note = nil
			s.o.PeerURLs = nil
		}, "has no member m2: it has m1 (1), 5 (http://127.0.0.1:2, never started), m3 (3)", "--removed"},
		"Twice": {func(_ *testing.T, s *scene) {
			s.members = append(s.members, backup.Member{ID: 7, Name: "m2"})
		}, "2 members have the name m2: 2 and 7", ""},
		"OtherNote": {func(_ *testing.T, s *scene) {
			s.note = &note{ClusterID: 9, Member: "m4"}
		}, "the replacement of member m4 of cluster 9 was begun", ""},
		"TakenURL": {func(_ *testing.T, s *scene) {
			s.o.PeerURLs = []string{"http://127.0.0.1:3"}
		}, "http://127.0.0.1:3 is a peer URL of member m3 (3)", ""},
		"AddedAsVoter": {func(_ *testing.T, s *scene) { s.new(false, false) }, "was added as a voting member", ""},
		"DataOfOther": {func(_ *testing.T, s *scene) {
			s.held = contents{entries: []string{"member"}, member: 3, cluster: 9}
		}, "has the data of member m3 (3), which is not replaced", ""},
		"DataOfOtherCluster": {func(_ *testing.T, s *scene) {
			s.held = contents{entries: []string{"member"}, member: 2, cluster: 8}
		}, "has data of another cluster", ""},
		"Foreign": {func(t *testing.T, s *scene) {
			file(t, filepath.Join(s.f.dataDir, "etc", "passwd"))
		}, "no directory of etcd", ""},
		"WALElsewhere": {func(t *testing.T, s *scene) {
			file(t, filepath.Join(s.f.dataDir, "member", "snap", "db"))
		}, "its WAL is elsewhere", "--wal-dir"},
		"UsualWALWithoutOne": {func(t *testing.T, s *scene) { // as a page of commands with a default gives it
			file(t, filepath.Join(s.f.dataDir, "member", "snap", "db"))
			f, err := newFolders(s.f.dataDir, filepath.Join(s.f.dataDir, "member", "wal"))
			if err != nil {
				t.Fatal(err)
			}
			s.f = f
		}, "its WAL is elsewhere", "--wal-dir"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			c.change(t, s)
			_, _, err := s.judge(t)
			var refusal *backup.RefusedError
			if !errors.As(err, &refusal) || !strings.Contains(refusal.Reason, c.words) || refusal.Override != c.override {
				t.Errorf("got %v (%+v), want a refusal with %q and %q", err, refusal, c.words, c.override)
			}
		})
	}
	s := newScene(t)
	s.seen[1] = cluster.Candidate{MemberID: 1, NoLeader: true}
	var unsettled *unsettledError
	if _, _, err := s.judge(t); !errors.As(err, &unsettled) {
		t.Errorf("without a leader: %v", err)
	}
}

// TestNext_Doubt: a server that is starting shows an empty folder for a moment. It is not taken
// for one whose data is gone.
func TestNext_Doubt(t *testing.T) {
	s := newScene(t)
	s.new(true, true)
	s.o.DryRun, s.o.pause = false, time.Millisecond
	a := &asker{o: &s.o, folders: s.f}
	if err := a.identify(&s.state); err != nil {
		t.Fatal(err)
	}
	j := &judge{o: &s.o, folders: s.f, report: &Report{}}
	var unsettled *unsettledError
	if _, err := j.next(t.Context(), &s.state); !errors.As(err, &unsettled) {
		t.Errorf("at the first look: %v", err)
	}
	time.Sleep(5 * time.Millisecond)
	if step, err := j.next(t.Context(), &s.state); step != Remove || err != nil {
		t.Errorf("later: %q, %v", step, err)
	}
}

// TestFolders: a WAL directory is part of the data directory, or is moved on its own.
func TestFolders(t *testing.T) {
	root := t.TempDir()
	data := filepath.Join(root, "data")
	for wal, want := range map[string]folders{
		"":                                   {dataDir: data},
		filepath.Join(data, "member", "wal"): {dataDir: data, usual: true},
		filepath.Join(data, "wal"):           {dataDir: data, walDir: filepath.Join(data, "wal"), below: "wal"},
		filepath.Join(root, "wal"):           {dataDir: data, walDir: filepath.Join(root, "wal"), apart: true},
	} {
		if got, err := newFolders(data, wal); err != nil || !reflect.DeepEqual(*got, want) {
			t.Errorf("%s: got %+v, %v, want %+v", wal, got, err, want)
		}
	}
	for _, wal := range []string{root, data, filepath.Join(data, "member", "snap")} {
		if _, err := newFolders(data, wal); err == nil {
			t.Errorf("%s was accepted", wal)
		}
	}
}
