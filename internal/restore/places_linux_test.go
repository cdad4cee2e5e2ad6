package restore_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/etcd-backupd/backupd/internal/restore"
)

// TestExecute_Places: members that go to places of their own are put there together. The restore
// is stopped at some of its changes, and the same one finishes it.
func TestExecute_Places(t *testing.T) {
	f := newest(t)
	src := fromFile(t, f.snapshot)
	finished := 0
	for stop := 11; ; stop += 4 { // before that nothing is put into place
		if stop > 100 {
			t.Fatal("it does not come to an end")
		}
		root := t.TempDir()
		at := func(names ...string) string { return filepath.Join(append([]string{root}, names...)...) }
		must(t, os.MkdirAll(at("one", "data", "member"), 0o700))
		req := request{Request: restore.Request{
			InitialCluster: "m1=http://10.0.0.1:2380,m2=http://10.0.0.2:2380", Token: "mine",
		}}
		req.Replace, req.AllowRunning = true, true
		req.Places = []restore.LocalPlace{
			{Member: "m1", DataDir: at("one", "data"), WALDir: at("log")}, {Member: "m2", DataDir: at("two")},
		}
		changes := 0
		req.before = func(string, string) error {
			if changes++; changes > stop {
				return errCrash
			}
			return nil
		}
		w, err := req.plan(t.Context(), src)
		must(t, err)
		err = req.execute(t.Context(), w, src)
		if err != nil && !errors.Is(err, errCrash) {
			t.Fatal(err)
		}
		ended := err == nil
		req.before = nil
		if !ended {
			finished += finishPlaces(t, req, src)
		}
		for _, dir := range []string{at("one", "data"), at("two")} {
			if _, err := os.Stat(databaseOf(dir)); err != nil {
				t.Errorf("stopped at %d: %v", stop, err)
			}
		}
		if walOf(t, at("log")) == walOf(t, at("two", "member", "wal")) {
			t.Errorf("stopped at %d: both are one member", stop)
		}
		if ended {
			if finished < 4 {
				t.Errorf("only %d restores were finished", finished)
			}
			return
		}
	}
}

// finishPlaces goes on with a restore that was interrupted: it is finished, but not by one to other
// places, or begun again if it has put nothing into place. It returns 1 if there was one.
func finishPlaces(t *testing.T, req request, src restore.Source) (finished int) {
	t.Helper()
	if restore.CheckInterrupted(req.Site) != nil {
		other := req
		other.Places = slices.Clone(req.Places)
		other.Places[0].WALDir = ""
		_, err := restore.FinishInterrupted(t.Context(), other.Site, other.Request, src.About())
		var interrupted *restore.InterruptedError
		if !errors.As(err, &interrupted) || !slices.Equal(interrupted.Differs, []string{"the places of the plan"}) {
			t.Errorf("other places: %v", err)
		}
	}
	done, err := restore.FinishInterrupted(t.Context(), req.Site, req.Request, src.About())
	must(t, err)
	if done == nil {
		w, err := req.plan(t.Context(), src)
		must(t, err)
		must(t, req.execute(t.Context(), w, src))
		return 0
	}
	if len(done.Targets) != 2 {
		t.Errorf("finished as %+v", done)
	}
	return 1
}
