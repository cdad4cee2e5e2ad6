package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/etcd-backupd/backupd/internal/server/callers"
)

const (
	mediaEvents  = "text/event-stream"
	maxStreams   = 32
	maxPending   = 1000             // jobs whose newest state a stream has not sent yet
	heartbeat    = 15 * time.Second // keeps proxies from closing a silent stream
	eventTimeout = 10 * time.Second // how long a caller may take to read an event
)

// hub passes every change of a job to each stream.
type hub struct {
	mu    sync.Mutex // guards boxes
	boxes map[*mailbox]struct{}
}

func (h *hub) publish(j Job) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for b := range h.boxes {
		b.put(j)
	}
}

func (h *hub) add(b *mailbox) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.boxes == nil {
		h.boxes = map[*mailbox]struct{}{}
	}
	h.boxes[b] = struct{}{}
}

func (h *hub) remove(b *mailbox) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.boxes, b)
}

// mailbox holds the jobs that a stream has not sent yet, each with its newest state
// only, so that progress never piles up behind a slow caller.
type mailbox struct {
	only  string // the id of the one job; empty: all
	wants func(Job) bool
	ready chan struct{} // holds one token while there is something

	mu   sync.Mutex // guards what follows
	jobs map[string]Job
	ids  []string // in the order of their first change
	full bool
}

func newMailbox(only string, wants func(Job) bool) *mailbox {
	return &mailbox{only: only, wants: wants, ready: make(chan struct{}, 1), jobs: map[string]Job{}}
}

// put never blocks.
func (b *mailbox) put(j Job) {
	if b.only != "" && j.ID != b.only || !b.wants(j) {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.add(j)
}

// putOlder adds a job from a listing, unless the mailbox holds a change of it,
// which is at least as new.
func (b *mailbox) putOlder(j Job) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, changed := b.jobs[j.ID]; !changed {
		b.add(j)
	}
}

func (b *mailbox) add(j Job) {
	if _, known := b.jobs[j.ID]; !known {
		if b.full = b.full || len(b.ids) >= maxPending; b.full {
			return
		}
		b.ids = append(b.ids, j.ID)
	}
	b.jobs[j.ID] = j
	select {
	case b.ready <- struct{}{}:
	default:
	}
}

// take empties the mailbox. It returns false if a job did not fit.
func (b *mailbox) take() ([]Job, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]Job, len(b.ids))
	for i, id := range b.ids {
		out[i] = b.jobs[id]
	}
	clear(b.jobs)
	b.ids = b.ids[:0]
	return out, !b.full
}

// events is the endpoint of a stream: of the job in the path, or of all jobs. now
// lists the current jobs.
func events(now func(s *Server, r *http.Request) ([]Job, error), problems ...int) endpoint {
	return endpoint{status: http.StatusOK, media: mediaEvents, problems: append(problems, http.StatusServiceUnavailable),
		serve: func(s *Server, w http.ResponseWriter, r *http.Request, _ []byte) error {
			select {
			case s.streams <- struct{}{}:
				defer func() { <-s.streams }()
			default:
				return newProblem(http.StatusServiceUnavailable, "all %d streams of events are in use", maxStreams).
					withHint("end one of them, or poll GET %s/jobs", apiPrefix).withHeader("Retry-After", "10")
			}
			// The mailbox is added before the jobs are listed, so that no change in
			// between is lost.
			st := &stream{
				w: w, control: http.NewResponseController(w),
				box:  newMailbox(r.PathValue("id"), func(j Job) bool { return sees(r.Context(), j.Cluster) }),
				seen: map[string]Job{},
			}
			st.now = func() ([]Job, error) { return now(s, r) }
			s.hub.add(st.box)
			defer s.hub.remove(st.box)
			jobs, err := st.now()
			if err != nil {
				return err
			}
			w.Header().Set("Content-Type", mediaEvents)
			w.WriteHeader(http.StatusOK)
			if r.Method == http.MethodHead {
				return nil
			}
			st.catchUp(jobs)
			if err := st.run(r.Context(), s.stopping); err != nil {
				s.log.Debug("dropped a stream of events", "remote", callers.Address(r), "err", err)
			}
			return nil
		}}
}

func watchJobs(s *Server, r *http.Request) ([]Job, error) { return jobsFor(s, r), nil }

func watchJob(s *Server, r *http.Request) ([]Job, error) {
	job, err := getJob(s, r)
	return []Job{job}, err
}

// stream is a connection on which one caller reads events.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
	box     *mailbox
	seen    map[string]Job // as the caller knows them
	now     func() ([]Job, error)
}

var errSlow = errors.New("too many changes are waiting to be read")

// run writes events until the caller is gone, the server stops, or the one job has
// ended.
func (st *stream) run(ctx context.Context, stopping <-chan struct{}) error {
	tick := time.NewTicker(heartbeat)
	defer tick.Stop()
	defer st.extend() // the end of the answer is written after run returns
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-stopping:
			return nil
		case <-st.box.ready:
			jobs, ok := st.box.take()
			if !ok {
				return errSlow
			}
			if ended, err := st.tell(jobs); ended || err != nil {
				return err
			}
		case <-tick.C:
			// No change tells that an old job is forgotten. A caller must not wait for ever
			// for its end. The backend's list is the truth.
			jobs, err := st.now()
			if err != nil {
				return err
			}
			st.catchUp(jobs)
			if err := st.write([]byte(": heartbeat\n\n")); err != nil {
				return err
			}
		}
	}
}

// catchUp puts every listed job into the mailbox whose state the caller does not
// know, and forgets the jobs that are not listed.
func (st *stream) catchUp(jobs []Job) {
	listed := map[string]Job{}
	for _, j := range jobs {
		if known, ok := st.seen[j.ID]; ok {
			listed[j.ID] = known
		}
		if st.seen[j.ID] != j {
			st.box.putOlder(j)
		}
	}
	st.seen = listed
}

// tell writes jobs as events, and reports whether the stream's one job has ended.
func (st *stream) tell(jobs []Job) (ended bool, err error) {
	var out bytes.Buffer
	for _, j := range jobs {
		raw, err := json.Marshal(j)
		if err != nil {
			return false, fmt.Errorf("encode job: %w", err)
		}
		fmt.Fprintf(&out, "event: job\ndata: %s\n\n", raw)
		st.seen[j.ID] = j
		ended = st.box.only != "" && j.State != JobRunning
	}
	return ended, st.write(out.Bytes())
}

// extend gives the caller time to read the next write.
func (st *stream) extend() error {
	if err := st.control.SetWriteDeadline(time.Now().Add(eventTimeout)); err != nil {
		return fmt.Errorf("set write deadline: %w", err)
	}
	return nil
}

func (st *stream) write(p []byte) error {
	if err := st.extend(); err != nil {
		return err
	}
	if _, err := st.w.Write(p); err != nil {
		return err
	}
	return st.control.Flush()
}
