package server_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/server"
)

// listener is somebody who reads a stream of events.
type listener struct {
	resp   *http.Response
	in     *bufio.Reader
	cancel context.CancelFunc
}

func (r *running) listen(t *testing.T, path string) *listener {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, "GET", r.url+api+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	l := &listener{resp, bufio.NewReader(resp.Body), cancel}
	t.Cleanup(l.close)
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%s %s", resp.Status, resp.Header.Get("Content-Type"))
	}
	return l
}

func (l *listener) close() {
	l.cancel()
	l.resp.Body.Close()
}

// next returns the next job, or io.EOF.
func (l *listener) next() (server.Job, error) {
	var lines []string
	for {
		line, err := l.in.ReadString('\n')
		if err != nil {
			return server.Job{}, err
		}
		if line != "\n" {
			lines = append(lines, line)
			continue
		}
		if len(lines) != 2 || lines[0] != "event: job\n" {
			return server.Job{}, fmt.Errorf("event %q", lines)
		}
		var j server.Job
		err = json.Unmarshal([]byte(strings.TrimPrefix(lines[1], "data: ")), &j)
		return j, err
	}
}

func (l *listener) want(t *testing.T, want server.Job) {
	t.Helper()
	got, err := l.next()
	if err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Fatalf("event\n%+v, want\n%+v", got, want)
	}
}

func backupJob(done int64) server.Job {
	return server.Job{ID: "job2", Kind: "backup", Repository: "main", Cluster: "prod", Reason: "manual",
		State:   server.JobRunning,
		Started: noon, Stage: "store", Done: done, Total: 1 << 20}
}

func TestEvents_OfOneJob(t *testing.T) {
	b := newBackend()
	b.set(backupJob(1))
	r := start(t, server.Options{Backend: b})
	l := r.listen(t, "/jobs/job2/events")
	l.want(t, backupJob(1)) // the current state
	b.change(backupJob(2))
	l.want(t, backupJob(2))
	other := backupJob(3)
	other.ID = "job3"
	b.change(other)
	end := backupJob(1 << 20)
	end.State, end.Ended = server.JobSucceeded, noon.Add(time.Minute)
	b.change(end)
	l.want(t, end)
	if j, err := l.next(); err != io.EOF {
		t.Errorf("after the end: %+v, %v", j, err)
	}
	// Of a job that has ended the stream is its end.
	l = r.listen(t, "/jobs/job2/events")
	l.want(t, end)
	if j, err := l.next(); err != io.EOF {
		t.Errorf("after the end: %+v, %v", j, err)
	}
}

func TestEvents_OfAllJobs(t *testing.T) {
	b := newBackend()
	r := start(t, server.Options{Backend: b})
	l := r.listen(t, "/events")
	l.want(t, b.Jobs()[0])
	for i := range 3 {
		j := backupJob(int64(i))
		j.ID, j.State = fmt.Sprint("new", i), server.JobFailed // ended jobs do not end it
		b.change(j)
		l.want(t, j)
	}
}

// Progress does not pile up behind a caller that does not read, and the end is sent
// nevertheless.
func TestEvents_Coalesce(t *testing.T) {
	b := newBackend()
	b.set(backupJob(0))
	r := start(t, server.Options{Backend: b})
	l := r.listen(t, "/jobs/job2/events")
	// More than the buffers of the connection hold.
	j := backupJob(0)
	j.Error = strings.Repeat("x", 10_000)
	const changes = 5_000
	for i := range int64(changes) {
		j.Done = i
		b.change(j)
	}
	j.State = server.JobSucceeded
	b.change(j)
	var got []server.Job
	for {
		j, err := l.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, j)
	}
	if !slices.IsSortedFunc(got, func(a, b server.Job) int { return int(a.Done - b.Done) }) || got[len(got)-1] != j {
		t.Errorf("%d events that do not go forward to the end", len(got))
	}
	if len(got) >= changes {
		t.Errorf("%d events for %d changes", len(got), changes)
	}
}

func TestEvents_LimitOfStreams(t *testing.T) {
	r := start(t, server.Options{})
	var open []*listener
	for range 32 {
		open = append(open, r.listen(t, "/events"))
	}
	p := r.problem(t, http.StatusServiceUnavailable, "GET", api+"/events", "")
	if !strings.Contains(p.Detail, "32 streams") {
		t.Errorf("detail %q", p.Detail)
	}
	open[0].close()
	for { // until the server has seen it
		resp, err := r.client.Get(r.url + api + "/jobs/job1/events")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			break
		}
	}
}

func TestEvents_EndWithTheServer(t *testing.T) {
	r := start(t, server.Options{})
	l := r.listen(t, "/events")
	if _, err := l.next(); err != nil {
		t.Fatal(err)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if j, err := l.next(); err != io.EOF {
		t.Errorf("after the server: %+v, %v; want a clean end", j, err)
	}
}
