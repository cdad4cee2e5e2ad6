package daemon_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/etcd-backupd/backupd/internal/config"
	"github.com/etcd-backupd/backupd/internal/duty"
	"github.com/etcd-backupd/backupd/internal/notify"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestOnce_OneDown: one cluster that is down does not disturb the other.
func TestOnce_OneDown(t *testing.T) {
	h := newHouse(t)
	h.configure("@hourly", "  - name: down\n    endpoints: ["+testserver.FreeURL(t)+
		"]\n    snapshot: {schedule: \"@hourly\", retries: 0, request-timeout: 1s}\n")
	told := h.webhook("success", "failure")
	got, err := h.daemon().Once(t.Context(), nil)
	if err != nil || len(got) != 2 {
		t.Fatalf("got %d outcomes, %v", len(got), err)
	}
	if good, bad := got[0].Outcome, got[1].Outcome; good.Err != nil || good.Manifest == nil || bad.Err == nil ||
		bad.Manifest != nil {
		t.Fatalf("got %+v and %+v", good, bad)
	}
	// Delivered before it returned.
	all := told()
	slices.SortFunc(all, func(a, b notify.Event) int { return strings.Compare(b.Cluster, a.Cluster) })
	if diff := cmp.Diff([]string{"backup success", "backup failure"}, kinds(all)); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}

// TestOnce_TimeOut: the error tells the reason, not only that time was up, and no
// further try is made in vain.
func TestOnce_TimeOut(t *testing.T) {
	t.Parallel() // it waits
	h := newHouse(t)
	h.endpoints = []string{testserver.FreeURL(t)}
	h.configure("@yearly", "")
	h.edit("retries: 0", "retries: 5, timeout: 3s")
	told := h.webhook()
	d, out := h.once()
	if out.Err == nil {
		t.Fatalf("got %+v", out)
	}
	text := out.Err.Error()
	if !strings.Contains(text, "longer than its time-out of 3s") || !strings.Contains(text, "no member can serve") ||
		len(d.Jobs()) != 1 {
		t.Errorf("after %d tries: %s", len(d.Jobs()), text)
	}
	if diff := cmp.Diff([]string{"backup failure"}, kinds(told())); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}

// TestOnce_MissingFile: a file that is not there is told at once. Nobody makes it in the pause
// of a CronJob, and the pauses would be minutes.
func TestOnce_MissingFile(t *testing.T) {
	h := newHouse(t)
	h.configure("@yearly", "")
	h.edit("retries: 0", "retries: 3")
	h.edit("  - name: prod\n", "  - name: prod\n    user: root\n    password-file: /no/such/password\n")
	told := h.webhook()
	d, out := h.once()
	missing := out.Err != nil && errors.As(out.Err, new(*config.Error)) &&
		strings.Contains(out.Err.Error(), "/no/such/password")
	if !missing || len(d.Jobs()) != 1 {
		t.Errorf("after %d tries: got %+v", len(d.Jobs()), out)
	}
	if diff := cmp.Diff([]string{"backup failure"}, kinds(told())); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}

// TestOnce_Interrupted: an interrupted backup fails. The database that it received
// waits for the next try of the CronJob.
func TestOnce_Interrupted(t *testing.T) {
	h := newHouse(t)
	upload := h.gated().hold("PUT", "prod/data/")
	told := h.webhook()
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	ended := make(chan duty.Outcome, 2)
	d := h.daemon()
	go func() {
		got, err := d.Once(ctx, []string{"prod"})
		ended <- duty.Outcome{Err: err}
		for _, out := range got {
			ended <- out.Outcome
		}
	}()
	h.received()
	upload.reached()
	cancel(errors.New("interrupted by a signal"))
	if got := <-ended; got.Err != nil {
		t.Fatal(got.Err)
	}
	if got := <-ended; got.Err == nil || !strings.Contains(got.Err.Error(), "interrupted by a signal") {
		t.Fatalf("got %+v", got)
	}
	if diff := cmp.Diff([]string{"backup failure"}, kinds(told())); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
	upload.release()
	streams := h.streams()
	if h.taken(); h.streams() != streams {
		t.Errorf("the next try: %d streams", h.streams()-streams)
	}
}
