package daemon

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/etcd-backupd/backupd/internal/notify"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestOnce_OneDown: one cluster that is down does not disturb the other.
func TestOnce_OneDown(t *testing.T) {
	h := newHouse(t)
	h.configure("@hourly", "  - name: down\n    endpoints: ["+testserver.FreeURL(t)+"]\n    snapshot: {schedule: \"@hourly\", retries: 0, request-timeout: 1s}\n")
	told := h.webhook("success", "failure")
	got, err := h.daemon().Once(t.Context(), nil)
	if err != nil || len(got) != 2 || got[0].Err != nil || got[0].Manifest == nil || got[1].Err == nil || got[1].Manifest != nil {
		t.Fatalf("got %+v, %v", got, err)
	}
	// Delivered before it returned.
	all := told()
	slices.SortFunc(all, func(a, b notify.Event) int { return strings.Compare(b.Cluster, a.Cluster) })
	if diff := cmp.Diff([]string{"backup success", "backup failure"}, kinds(all)); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}

// TestOnce_TimeOut: what is said is why it failed, not only that time was up,
// and that no other attempt is made in vain.
func TestOnce_TimeOut(t *testing.T) {
	h := newHouse(t)
	h.edit("retries: 0", "retries: 5, timeout: 3s")
	told := h.webhook()
	h.real.Members[0].Kill()
	d := h.daemon()
	got, err := d.Once(t.Context(), nil)
	if err != nil || len(got) != 1 || got[0].Err == nil {
		t.Fatalf("got %+v, %v", got, err)
	}
	text := got[0].Err.Error()
	if !strings.Contains(text, "longer than its time-out of 3s") || !strings.Contains(text, "no member can serve") || len(d.Jobs()) != 1 {
		t.Errorf("after %d tries: %s", len(d.Jobs()), text)
	}
	if diff := cmp.Diff([]string{"backup failure"}, kinds(told())); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}

// TestOnce_Interrupted: a backup that was told to end is a failure to whoever
// waits for it. What was received is kept for the next try of the CronJob.
func TestOnce_Interrupted(t *testing.T) {
	h := newHouse(t)
	told := h.webhook()
	d := h.daemon()
	store := breakable(d.all()[0])
	store.hold = make(chan struct{})
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	go func() {
		for !hasRecord(h) && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		cancel(errors.New("interrupted by a signal"))
	}()
	got, err := d.Once(ctx, nil)
	if err != nil || got[0].Err == nil || !strings.Contains(got[0].Err.Error(), "interrupted by a signal") {
		t.Fatalf("got %+v, %v", got, err)
	}
	if diff := cmp.Diff([]string{"backup failure"}, kinds(told())); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
	streams := h.streams()
	if got, err := h.daemon().Once(t.Context(), nil); err != nil || got[0].Manifest == nil || h.streams() != streams {
		t.Errorf("the next try: %+v, %v, %d streams", got, err, h.streams()-streams)
	}
}
