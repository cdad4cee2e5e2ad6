package notify_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/etcd-backupd/backupd/internal/notify"
)

// phone is a receiver that can be down.
type phone struct {
	mu   sync.Mutex // guards what follows
	down bool
	got  []string
}

// set puts the receiver up or down.
func (p *phone) set(down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = down
}

// told returns what it has heard.
func (p *phone) told() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.got)
}

func (p *phone) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var e notify.Event
	err := json.NewDecoder(r.Body).Decode(&e)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil || p.down {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	p.got = append(p.got, fmt.Sprintf("%s %s %s", r.URL.Path[1:], e.Job, e.Kind))
}

func (p *phone) heard(t *testing.T, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, p.told(), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("heard (-want +got):\n%s", diff)
	}
}

func ended(job, err string) notify.Event {
	return notify.Event{Job: job, Repository: "main", Cluster: "prod", Time: time.Now(), Error: err}
}

// TestArmedAgain: an event counts as told when it was delivered. One that was dropped
// is told later, once, unless it is no longer true.
func TestArmedAgain(t *testing.T) {
	ignore := func(string, string) {}
	hook := func(t *testing.T, kinds ...notify.Kind) *notify.Target {
		return target(t, notify.Webhook{URL: "http://up.example/a"}, kinds...)
	}
	bubble(t, "a failure is told when the receiver is back, though the job does not run again", func(t *testing.T) {
		p := &phone{down: true}
		inBubble(t, p)
		n, stop := run(t, ignore, hook(t))
		n.Outcome(ended("backup", "down"))
		time.Sleep(50 * time.Minute)
		p.heard(t)
		p.set(false)
		time.Sleep(10 * time.Hour)
		p.heard(t, "a backup failure")
		n.Outcome(ended("backup", "down")) // which is told already
		time.Sleep(time.Minute)
		p.heard(t, "a backup failure")
		stop()
	})
	bubble(t, "the next failure tells at once", func(t *testing.T) {
		p := &phone{down: true}
		inBubble(t, p)
		n, stop := run(t, ignore, hook(t))
		n.Outcome(ended("backup", "down"))
		time.Sleep(6 * time.Minute) // given up
		p.set(false)
		n.Outcome(ended("backup", "down"))
		time.Sleep(time.Second)
		p.heard(t, "a backup failure")
		time.Sleep(time.Hour)
		p.heard(t, "a backup failure")
		stop()
	})
	bubble(t, "a failure that was never told is over: only its end is", func(t *testing.T) {
		p := &phone{down: true}
		inBubble(t, p)
		n, stop := run(t, ignore, hook(t))
		n.Outcome(ended("backup", "down"))
		time.Sleep(6 * time.Minute)
		p.set(false)
		n.Outcome(ended("backup", ""))
		time.Sleep(time.Hour)
		p.heard(t, "a backup recovery")
		stop()
	})
	bubble(t, "a recovery that was dropped is told", func(t *testing.T) {
		p := &phone{}
		inBubble(t, p)
		n, stop := run(t, ignore, hook(t))
		n.Outcome(ended("backup", "down"))
		time.Sleep(time.Second)
		p.set(true)
		n.Outcome(ended("backup", ""))
		time.Sleep(6 * time.Minute)
		n.Outcome(ended("backup", "")) // and is no longer the newest event
		time.Sleep(6 * time.Minute)
		p.set(false)
		time.Sleep(time.Hour)
		p.heard(t, "a backup failure", "a backup recovery")
		n.Outcome(ended("backup", ""))
		n.Outcome(ended("backup", "down")) // and the next failure is a new one
		time.Sleep(time.Second)
		p.heard(t, "a backup failure", "a backup recovery", "a backup failure")
		stop()
	})
	bubble(t, "what a full queue loses is told", func(t *testing.T) {
		p := &phone{down: true}
		inBubble(t, p)
		n, stop := run(t, ignore, hook(t))
		for i := range 150 {
			e := ended("backup", "down")
			e.Cluster = fmt.Sprint(i)
			n.Outcome(e)
		}
		time.Sleep(time.Minute)
		p.set(false)
		time.Sleep(time.Hour)
		if len(p.told()) != 150 {
			t.Errorf("%d of 150 failures were told", len(p.told()))
		}
		stop()
	})
}

// TestSet_TellsWhatFails: a receiver that a reload added or mended is told of what
// fails already, and no other one is told again.
func TestSet_TellsWhatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &phone{}
		inBubble(t, p)
		hook := func(name string, clusters ...string) *notify.Target {
			out, err := notify.NewTarget(notify.Webhook{URL: "http://up.example/" + name}, clusters, nil)
			if err != nil {
				t.Fatal(err)
			}
			return out
		}
		n, stop := run(t, func(string, string) {}, hook("old"))
		n.Outcome(ended("backup", "down"))
		n.Outcome(ended("verify", "damaged"))
		n.Outcome(ended("verify", ""))
		synctest.Wait()
		before := []string{"old backup failure", "old verify failure", "old verify recovery"}
		p.heard(t, before...)
		n.Set([]*notify.Target{hook("old"), hook("new"), hook("other", "another cluster")})
		time.Sleep(time.Second)
		p.heard(t, append(before, "new backup failure")...)
		p.set(true)
		n.Outcome(ended("verify", "damaged"))
		time.Sleep(6 * time.Minute)
		p.set(false) // and the reload says so
		n.Set([]*notify.Target{hook("new")})
		time.Sleep(time.Second)
		p.heard(t, append(before, "new backup failure", "new verify failure")...)
		stop()
	})
}

// TestRecall: what an earlier process told is not told again, and its end is told.
func TestRecall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &phone{}
		inBubble(t, p)
		hook := func(name string) *notify.Target { return target(t, notify.Webhook{URL: "http://up.example/" + name}) }
		n, stop := run(t, func(string, string) {}, hook("a"))
		n.Outcome(ended("backup", "down"))
		n.Outcome(ended("verify", "damaged"))
		since := time.Now()
		synctest.Wait()
		p.set(true)
		n.Outcome(ended("verify", "")) // of which the receiver does not hear
		stop()
		memory := restarted(t, n.Remember("main", "prod"))
		if got := n.Remember("main", "test"); len(got.Failing)+len(got.Told) > 0 {
			t.Errorf("of another cluster: %+v", got)
		}

		p.set(false)
		heard := len(p.told())
		var mu sync.Mutex
		var events []notify.Event
		next := notify.New([]*notify.Target{hook("a"), hook("b")}, slog.New(slog.DiscardHandler))
		next.Delivered = func(e notify.Event) {
			mu.Lock()
			defer mu.Unlock()
			events = append(events, e)
		}
		next.Recall("main", "prod", memory)
		time.Sleep(time.Hour)
		next.Outcome(ended("backup", "down"))
		next.Outcome(ended("verify", ""))
		next.Outcome(ended("backup", ""))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := next.Run(ctx, inTime); err != nil {
			t.Error(err)
		}
		for _, e := range events {
			if !e.Since.Equal(since) {
				t.Errorf("%s of %s: it fails since %v, want %v", e.Kind, e.Job, e.Since, since)
			}
		}
		less := func(a, b string) bool { return a < b }
		want := []string{"a backup recovery", "a verify recovery", "b backup failure", "b backup recovery"}
		if diff := cmp.Diff(want, p.told()[heard:], cmpopts.SortSlices(less)); diff != "" {
			t.Errorf("heard (-want +got):\n%s", diff)
		}
	})
}

// TestRecall_NotDelivered: a failure that a busy receiver refuses until the process ends
// is logged, holds up the end no longer than it may, and is told by the next process.
func TestRecall_NotDelivered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &phone{}
		busy := true
		inBubble(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if busy {
				w.WriteHeader(http.StatusTooManyRequests)
				return
			}
			p.ServeHTTP(w, r)
		}))
		start := func(log *slog.Logger, m notify.Memory) (*notify.Notifier, func()) {
			n := notify.New([]*notify.Target{target(t, notify.Webhook{URL: "http://up.example/a"})}, log)
			n.Recall("main", "prod", m)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { done <- n.Run(ctx, func() time.Duration { return 3 * time.Second }) }()
			return n, func() {
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			}
		}
		var log bytes.Buffer
		n, stop := start(slog.New(slog.NewTextHandler(&log, nil)), notify.Memory{})
		n.Outcome(ended("backup", "down"))
		n.Outcome(ended("verify", "damaged"))
		begin := time.Now()
		stop()
		if d := time.Since(begin); d != 3*time.Second {
			t.Errorf("the end took %s", d)
		}
		for _, job := range []string{"backup", "verify"} {
			if !strings.Contains(log.String(), `level=ERROR msg="a notification was not delivered" receiver=webhook `+
				"event=failure job="+job) {
				t.Errorf("%s: logged\n%s", job, &log)
			}
		}
		busy = false
		n, stop = start(slog.New(slog.DiscardHandler), restarted(t, n.Remember("main", "prod")))
		n.Outcome(ended("backup", "down"))
		n.Outcome(ended("verify", "damaged"))
		stop()
		p.heard(t, "a backup failure", "a verify failure")
	})
}

// restarted returns a memory as it is after its way through a file.
func restarted(t *testing.T, m notify.Memory) (out notify.Memory) {
	t.Helper()
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestRetryAfter: a receiver may ask for a pause, not for one without an end, and not
// for none.
func TestRetryAfter(t *testing.T) {
	for name, tt := range map[string]struct {
		after string
		slow  bool // two or three tries in the five minutes of a delivery; else more, with random pauses
	}{
		"seconds": {"100", true}, "weeks": {"1000000", true}, "an overflow": {"9223372037", true},
		"more than a number": {"99999999999999999999", true},
		"a date":             {"Fri, 31 Dec 2100 23:59:59 GMT", true},
		// These say nothing: the pauses grow by themselves.
		"negative": {"-5", false}, "below any number": {"-99999999999999999999", false}, "words": {"later", false},
		"a date that has passed": {"Fri, 31 Dec 1999 23:59:59 GMT", false},
	} {
		bubble(t, name, func(t *testing.T) {
			tries := 0
			inBubble(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				tries++
				w.Header().Set("Retry-After", tt.after)
				w.WriteHeader(http.StatusServiceUnavailable)
			}))
			n, stop := run(t, func(string, string) {}, target(t, notify.Slack{URL: "http://up.example"}))
			n.Notify(failure())
			time.Sleep(10 * time.Minute)
			stop()
			if slow := tries <= 4; tries < 2 || tries > 20 || slow != tt.slow {
				t.Errorf("%d tries", tries)
			}
		})
	}
}

// TestKinds: a prune, a history and a certificate have kinds of their own.
func TestKinds(t *testing.T) {
	expiring := func(left time.Duration) notify.Event {
		return notify.Event{Kind: notify.CertificateExpiring, Job: "certificate", File: "/a.crt", Time: time.Now(),
			Error: "it expires", Expires: time.Now().Add(left)}
	}
	for name, tt := range map[string]struct {
		kinds []notify.Kind
		want  []string
	}{
		"by default": {nil, []string{"certificate certificate-expiring", "prune prune-failure", "backup new-history",
			"prune recovery", "backup recovery", "certificate certificate-expiring", "certificate recovery"}},
		"failures alone": {[]notify.Kind{notify.Failed, notify.Recovered},
			[]string{"backup new-history", "backup recovery"}},
		"successes": {[]notify.Kind{notify.Succeeded}, []string{"backup recovery", "backup success"}},
		"prunes":    {[]notify.Kind{notify.PruneFailed, notify.Recovered}, []string{"prune prune-failure", "prune recovery"}},
	} {
		bubble(t, name, func(t *testing.T) {
			p := &phone{}
			inBubble(t, p)
			n, stop := run(t, func(string, string) {}, target(t, notify.Webhook{URL: "http://up.example/"}, tt.kinds...))
			prune, history := ended("prune", "denied"), ended("backup", "in question")
			prune.Kind, history.Kind = notify.PruneFailed, notify.NewHistory
			n.Outcome(expiring(20 * 24 * time.Hour))
			for _, e := range []notify.Event{prune, history, ended("prune", ""), ended("backup", ""),
				ended("prune", ""), ended("backup", "")} {
				n.Outcome(e)
			}
			for _, left := range []time.Duration{20, 19, 14} { // days: it is told again, but not each day
				n.Outcome(expiring(left * 24 * time.Hour))
				time.Sleep(24 * time.Hour)
			}
			time.Sleep(5 * 24 * time.Hour)
			n.Outcome(expiring(12 * 24 * time.Hour))
			renewed := expiring(0)
			renewed.Kind, renewed.Error = "", ""
			n.Outcome(renewed)
			time.Sleep(time.Second)
			var want []string
			for _, w := range tt.want {
				want = append(want, " "+w)
			}
			p.heard(t, want...)
			stop()
		})
	}
	ping := notify.Healthchecks{URL: "https://a"}
	if _, err := notify.NewTarget(ping, nil, []notify.Kind{notify.PruneFailed}); err == nil {
		t.Error("the check of a backup is failed by a prune")
	}
}
