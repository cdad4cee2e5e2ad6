package daemon

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/duty"
	"github.com/etcd-backupd/backupd/internal/server"
)

const (
	// jobsKept is how many jobs that ended are remembered.
	jobsKept = 200
	// sendEvery is how often progress within one stage is sent to the subscriber.
	sendEvery = 250 * time.Millisecond
)

// board shows the running jobs and the last that ended.
type board struct {
	mu      sync.Mutex // guards everything below, and the jobs on the board
	jobs    []*job     // the oldest first
	send    func(server.Job)
	lasting map[duty.Key]map[string]time.Duration
}

// job is one entry of the board.
type job struct {
	board *board
	server.Job
	sent   time.Time
	began  map[backup.Stage]time.Time
	phases map[backup.Stage]time.Duration
}

func newBoard() *board {
	return &board{send: func(server.Job) {}, lasting: map[duty.Key]map[string]time.Duration{}}
}

// begin puts a running job on the board.
func (b *board) begin(kind string, key duty.Key, reason string) *job {
	j := &job{
		board: b, began: map[backup.Stage]time.Time{}, phases: map[backup.Stage]time.Duration{},
		Job: server.Job{
			ID: backup.RandomName(12), Kind: kind, Repository: key.Repository, Cluster: key.Cluster,
			Reason: reason, State: server.JobRunning, Started: time.Now().UTC(),
		},
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.jobs = append(b.jobs, j)
	b.forget()
	b.changed(j)
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

// changed sends a job to the subscriber, which never blocks.
func (b *board) changed(j *job) {
	j.sent = time.Now()
	b.send(j.Job)
}

// progress records how far a stage of the job is; it is the job's
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
	if changed || now.Sub(j.sent) >= sendEvery {
		j.board.changed(j)
	}
}

// end records what the job came to.
func (j *job) end(o duty.Outcome) {
	j.board.mu.Lock()
	defer j.board.mu.Unlock()
	j.State, j.Snapshot, j.Ended = stateOf(o.Result), string(o.Snapshot), time.Now().UTC()
	if o.Err != nil {
		j.Error = o.Err.Error()
	}
	j.board.changed(j)
}

func stateOf(r duty.Result) string {
	switch r {
	case duty.Succeeded:
		return server.JobSucceeded
	case duty.Unconfirmed:
		return server.JobUnconfirmed
	case duty.Suspect, duty.Unaccepted:
		return server.JobSuspect
	case duty.Skipped, duty.Passed:
		return server.JobSkipped
	}
	return server.JobFailed
}

// abandon ends the job should it still run, as after a panic.
func (j *job) abandon() {
	if j.current().State == server.JobRunning {
		j.end(duty.Outcome{Result: duty.Failed, Err: errors.New("it ended without a result; this is a bug of backupd")})
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

// running reports whether such a job runs.
func (b *board) running(kind string, key duty.Key) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.ContainsFunc(b.jobs, func(j *job) bool {
		return j.Kind == kind && j.Repository == key.Repository && j.Cluster == key.Cluster && j.State == server.JobRunning
	})
}

// keep remembers how long the stages of the last snapshot took.
func (b *board) keep(key duty.Key, lasting map[string]time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lasting[key] = lasting
}

// last returns how long the stages of the last snapshot took.
func (b *board) last(key duty.Key) map[string]time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lasting[key]
}

// subscribe calls send with each job that changes until ctx is done. There is one
// subscriber at a time, and its send never blocks.
func (b *board) subscribe(ctx context.Context, send func(server.Job)) {
	b.mu.Lock()
	b.send = send
	b.mu.Unlock()
	<-ctx.Done()
	b.mu.Lock()
	b.send = func(server.Job) {}
	b.mu.Unlock()
}
