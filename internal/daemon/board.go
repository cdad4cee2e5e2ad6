package daemon

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/server"
)

const (
	// jobsKept is how many jobs that ended are remembered.
	jobsKept = 200
	// tellEvery is how often progress within one stage is told to subscribers.
	tellEvery = 250 * time.Millisecond
)

// board shows the running jobs and the last that ended.
type board struct {
	mu      sync.Mutex // guards everything below, and the jobs on the board
	jobs    []*job     // the oldest first
	readers map[*reader]struct{}
}

// reader is one subscriber. Changes are kept by job, so one that is slow gets
// the newest state of each and costs no more memory than the board.
type reader struct {
	changed map[*job]struct{}
	wake    chan struct{} // holds one
}

// job is one entry of the board.
type job struct {
	board *board
	server.Job
	told   time.Time
	began  map[backup.Stage]time.Time // by stage
	phases map[backup.Stage]time.Duration
}

func newBoard() *board { return &board{readers: map[*reader]struct{}{}} }

// begin puts a running job on the board.
func (b *board) begin(kind, cluster, reason string) *job {
	j := &job{board: b, began: map[backup.Stage]time.Time{}, phases: map[backup.Stage]time.Duration{}, Job: server.Job{
		ID: backup.RandomName(12), Kind: kind, Cluster: cluster, Reason: reason, State: server.JobRunning, Started: time.Now().UTC(),
	}}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.jobs = append(b.jobs, j)
	b.forget()
	b.tell(j)
	return j
}

// remove takes back a job that could not be started.
func (b *board) remove(j *job) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.jobs = slices.DeleteFunc(b.jobs, func(other *job) bool { return other == j })
}

// forget drops the oldest jobs that ended.
func (b *board) forget() {
	for i := 0; len(b.jobs) > jobsKept && i < len(b.jobs); {
		if b.jobs[i].State == server.JobRunning {
			i++
			continue
		}
		b.jobs = slices.Delete(b.jobs, i, i+1)
	}
}

// tell marks j as changed for every reader.
func (b *board) tell(j *job) {
	j.told = time.Now()
	for r := range b.readers {
		r.changed[j] = struct{}{}
		select {
		case r.wake <- struct{}{}:
		default:
		}
	}
}

// progress is told how far a stage of the job is; it is the job's
// [backup.Progress].
func (j *job) progress(stage backup.Stage, done, total int64) {
	j.board.mu.Lock()
	defer j.board.mu.Unlock()
	now := time.Now()
	if _, ok := j.began[stage]; !ok {
		j.began[stage] = now
	}
	j.phases[stage] = now.Sub(j.began[stage])
	changed := j.Stage != string(stage)
	j.Stage, j.Done, j.Total = string(stage), done, total
	if changed || now.Sub(j.told) >= tellEvery {
		j.board.tell(j)
	}
}

// end says what became of the job.
func (j *job) end(state, snapshot string, err error) {
	j.board.mu.Lock()
	defer j.board.mu.Unlock()
	j.State, j.Snapshot, j.Ended = state, snapshot, time.Now().UTC()
	if err != nil {
		j.Error = err.Error()
	}
	j.board.tell(j)
}

// abandon ends the job should it still run, as after a panic.
func (j *job) abandon() {
	if j.current().State == server.JobRunning {
		j.end(server.JobFailed, "", errors.New("it ended without a result; this is a bug of backupd"))
	}
}

// durations returns how long each stage took, and all of them ("total").
func (j *job) durations() map[string]time.Duration {
	j.board.mu.Lock()
	defer j.board.mu.Unlock()
	out := map[string]time.Duration{"total": j.Ended.Sub(j.Started)}
	for stage, d := range j.phases {
		out[string(stage)] = d
	}
	return out
}

// current returns the job as it stands.
func (j *job) current() server.Job {
	j.board.mu.Lock()
	defer j.board.mu.Unlock()
	return j.Job
}

// list returns all jobs, the newest first.
func (b *board) list() []server.Job {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]server.Job, 0, len(b.jobs))
	for _, j := range slices.Backward(b.jobs) {
		out = append(out, j.Job)
	}
	return out
}

// running tells whether such a job runs.
func (b *board) running(kind, cluster string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.ContainsFunc(b.jobs, func(j *job) bool {
		return j.Kind == kind && j.Cluster == cluster && j.State == server.JobRunning
	})
}

// subscribe calls send with each job that changes until ctx is done.
func (b *board) subscribe(ctx context.Context, send func(server.Job)) {
	r := &reader{changed: map[*job]struct{}{}, wake: make(chan struct{}, 1)}
	b.mu.Lock()
	b.readers[r] = struct{}{}
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		delete(b.readers, r)
		b.mu.Unlock()
	}()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		}
		for _, j := range b.take(r) {
			send(j)
		}
	}
}

// take returns what changed for a reader since it looked last.
func (b *board) take(r *reader) []server.Job {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]server.Job, 0, len(r.changed))
	for j := range r.changed {
		out = append(out, j.Job)
	}
	clear(r.changed)
	slices.SortFunc(out, func(a, b server.Job) int { return a.Started.Compare(b.Started) })
	return out
}
