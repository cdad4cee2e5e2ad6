package publish

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// interrupted is a restore over old data that has stopped at the exchange.
func interrupted(t *testing.T) (*site, string) {
	t.Helper()
	s := newSite(t, layout{"", "old", false, true})
	err := s.run(t, func(op, _ string) error {
		if op == "exchange" {
			return errCrash
		}
		return nil
	})
	if !errors.Is(err, errCrash) {
		t.Fatal(err)
	}
	return s, stagings(s.data)[0]
}

// TestFinish_NotAccepted leaves a restore as it is if nobody wants it.
func TestFinish_NotAccepted(t *testing.T) {
	s, staging := interrupted(t)
	unwanted := errors.New("unwanted")
	judge := Judge{
		Accept:  func(Work) error { return unwanted },
		Stopped: func(string, bool) error { t.Error("asked about a server"); return nil },
	}
	change := func(op, path string) error {
		if path != lockPath(staging) {
			t.Errorf("%s %s", op, path)
		}
		return nil
	}
	if work, err := Finish(s.dirs(), judge, change); work != nil || !errors.Is(err, unwanted) {
		t.Errorf("finished %+v, %v", work, err)
	}
	if work, err := Interrupted(s.dirs()); err != nil || work == nil || work.Source != "test" {
		t.Errorf("interrupted is %+v, %v", work, err)
	}
	if err := s.rerun(t, nil); err != nil {
		t.Error(err)
	}
	s.checkDone(t, "accepted")
}

// TestResume_FinishedMeanwhile does not say that it has finished what another process
// has: nobody was asked whether it was the right one.
func TestResume_FinishedMeanwhile(t *testing.T) {
	s, staging := interrupted(t)
	found, err := readJournal(staging)
	ok(t, err)
	if err := s.rerun(t, nil); err != nil {
		t.Fatal(err)
	}
	judge := Judge{Accept: func(Work) error { t.Error("asked"); return nil }}
	if done, err := found.resume(changer{}, judge); done || err != nil {
		t.Errorf("resumed: %v, %v", done, err)
	}
	s.checkDone(t, "finished meanwhile")
}

// TestResume_OtherJournal does not finish a restore that came into the place of the
// one that was found, before the lock was taken.
func TestResume_OtherJournal(t *testing.T) {
	s, staging := interrupted(t)
	found, err := readJournal(staging)
	ok(t, err)
	path := filepath.Join(staging, journalName)
	raw, err := os.ReadFile(path)
	ok(t, err)
	other := *found
	other.Source = "another"
	ok(t, other.write(changer{}))
	judge := Judge{
		Accept:  func(w Work) error { t.Errorf("asked about %+v", w); return nil },
		Stopped: func(string, bool) error { return nil },
	}
	var refused *InterruptedError
	if _, err := found.resume(changer{}, judge); !errors.As(err, &refused) || refused.Source != "another" {
		t.Errorf("resumed: %v", err)
	}
	if got := s.state(); got != "old old" {
		t.Errorf("the data is %s", got)
	}
	ok(t, os.WriteFile(path, raw, 0o600))
	if err := s.rerun(t, nil); err != nil {
		t.Error(err)
	}
}
