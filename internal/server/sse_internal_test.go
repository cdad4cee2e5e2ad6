package server

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener in memory: its connections and their deadlines live in
// the bubble of synctest.
type pipes struct {
	accept chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes { return &pipes{accept: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.accept:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

func (p *pipes) dial() net.Conn {
	client, server := net.Pipe()
	p.accept <- server
	return client
}

// fewJobs is a daemon that knows one job, and does not publish its changes.
type fewJobs struct {
	Backend
	mu   sync.Mutex
	jobs []Job
	send func(Job)
}

func (f *fewJobs) Subscribe(_ context.Context, send func(Job)) { f.send = send }
func (f *fewJobs) Clusters() []Cluster                         { time.Sleep(45 * time.Second); return nil }
func (f *fewJobs) Jobs() []Job {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]Job(nil), f.jobs...)
}
func (f *fewJobs) set(jobs ...Job) { f.mu.Lock(); defer f.mu.Unlock(); f.jobs = jobs }

// inBubble runs a server on pipes in a bubble of fake time.
func inBubble(t *testing.T, test func(t *testing.T, b *fewJobs, p *pipes)) {
	b := &fewJobs{jobs: []Job{{ID: "j", State: JobRunning}}}
	s, err := New(Options{Listen: "127.0.0.1:0", Backend: b, Metrics: http.NotFoundHandler()})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		// Channels belong to the bubble they are made in.
		s.stopping, s.streams = make(chan struct{}), make(chan struct{}, maxStreams)
		p := newPipes()
		s.doors = map[side]*door{apiSide: {listener: p, handler: s.api}}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		synctest.Wait()
		test(t, b, p)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func request(t *testing.T, p *pipes, path string) (net.Conn, *bufio.Reader) {
	t.Helper()
	c := p.dial()
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", path); err != nil {
		t.Fatal(err)
	}
	return c, bufio.NewReader(c)
}

// readUntil returns what comes up to and including want.
func readUntil(t *testing.T, in *bufio.Reader, want string) string {
	t.Helper()
	var got strings.Builder
	for !strings.HasSuffix(got.String(), want) {
		b, err := in.ReadByte()
		if err != nil {
			t.Fatalf("%v after %q, want %q", err, got.String(), want)
		}
		got.WriteByte(b)
	}
	return got.String()
}

func TestEvents_HeartbeatForHours(t *testing.T) {
	inBubble(t, func(t *testing.T, b *fewJobs, p *pipes) {
		c, in := request(t, p, "/api/v1/jobs/j/events")
		defer c.Close()
		began := time.Now()
		readUntil(t, in, `"state":"running"`)
		for i := range 1000 {
			if got := readUntil(t, in, ": heartbeat\n\n"); i > 0 && strings.Contains(got, "data:") {
				t.Fatalf("sent again although nothing has changed: %q", got)
			}
		}
		if took := time.Since(began); took != 1000*heartbeat {
			t.Errorf("1000 heartbeats in %s", took)
		}
		b.send(Job{ID: "j", State: JobRunning, Done: 7})
		readUntil(t, in, `"done":7,"total":0}`)
	})
}

// A change that never arrived is sent with the next heartbeat, and so is the end of
// the job.
func TestEvents_LostChanges(t *testing.T) {
	inBubble(t, func(t *testing.T, b *fewJobs, p *pipes) {
		c, in := request(t, p, "/api/v1/jobs/j/events")
		defer c.Close()
		readUntil(t, in, `"state":"running"`)
		b.set(Job{ID: "j", State: JobFailed})
		readUntil(t, in, `"state":"failed"`)
		readUntil(t, in, "\r\n0\r\n\r\n")
	})
	// A job that is not even listed any more.
	inBubble(t, func(t *testing.T, b *fewJobs, p *pipes) {
		c, in := request(t, p, "/api/v1/jobs/j/events")
		defer c.Close()
		readUntil(t, in, `"state":"running"`)
		b.set()
		readUntil(t, in, "\r\n0\r\n\r\n")
	})
}

func TestEvents_SlowCallerIsDropped(t *testing.T) {
	inBubble(t, func(t *testing.T, b *fewJobs, p *pipes) {
		c, in := request(t, p, "/api/v1/events")
		defer c.Close()
		readUntil(t, in, `"state":"running"`)
		b.send(Job{ID: "other", Error: strings.Repeat("x", 100_000)})
		began := time.Now()
		time.Sleep(eventTimeout + time.Second)
		synctest.Wait()
		rest, err := io.ReadAll(in)
		if err != nil || len(rest) > 50_000 {
			t.Errorf("%d bytes and %v after %s: the connection was not cut", len(rest), err, time.Since(began))
		}
	})
}

func TestMailbox_Overflow(t *testing.T) {
	b := newMailbox("", func(Job) bool { return true })
	for i := range maxPending {
		b.put(Job{ID: fmt.Sprint(i)})
		b.put(Job{ID: fmt.Sprint(i), Done: 1})
	}
	if b.full {
		t.Fatal("progress counts as more jobs")
	}
	b.putOlder(Job{ID: "0"})
	b.put(Job{ID: "one too many"})
	jobs, ok := b.take()
	if ok || len(jobs) != maxPending || jobs[0].Done != 1 {
		t.Errorf("%d jobs, %v; the first %+v", len(jobs), ok, jobs[0])
	}
}

// Who takes his time is cut off, and work may take longer than reading a
// request may.
func TestTimeouts(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *fewJobs, p *pipes) {
		for _, c := range []struct {
			send string
			want time.Duration
		}{
			{"GET /healthz HTTP/1.1\r\nHost: local", readHeaderTimeout},
			{"POST /api/v1/repositories/main/clusters/x/backups HTTP/1.1\r\nHost: localhost\r\n" +
				"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{", readTimeout},
			{"", readHeaderTimeout},
		} {
			conn := p.dial()
			began := time.Now()
			if _, err := io.WriteString(conn, c.send); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadAll(conn); err != nil {
				t.Error(err)
			}
			if took := time.Since(began).Round(time.Second); took != c.want {
				t.Errorf("%q was cut off after %s, want %s", c.send, took, c.want)
			}
			conn.Close()
		}
		deaf, in := request(t, p, "/api/v1/openapi.json")
		time.Sleep(writeTimeout + time.Second)
		if rest, err := io.ReadAll(in); err != nil || len(rest) > 0 {
			t.Errorf("who reads nothing for %s gets %d bytes, %v", writeTimeout, len(rest), err)
		}
		deaf.Close()
		conn, in := request(t, p, "/api/v1/clusters")
		readUntil(t, in, "HTTP/1.1 200 OK")
		readUntil(t, in, "{\"clusters\":[]}\n")
		began := time.Now()
		if _, err := in.ReadByte(); err != io.EOF || time.Since(began) != idleTimeout {
			t.Errorf("an idle connection ended with %v after %s", err, time.Since(began))
		}
		conn.Close()
	})
}
