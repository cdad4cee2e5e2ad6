// Package board shows the jobs of the daemon that run, and the last that ended.
package board

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/server"
)

const (
	// jobsKept is how many jobs that ended are remembered.
	jobsKept = 200
	// sendEvery is how often progress within one stage is sent to the subscriber.
	sendEvery = 250 * time.Millisecond
)

// Board shows the running jobs and the last that ended. Its methods may be called
// concurrently.
type Board struct {
	mu      sync.Mutex // guards everything below, and the jobs on the board
	jobs    []*Job     // the oldest first
	send    func(server.Job)
	lasting map[server.Key]map[string]time.Duration
}

// Job is one entry of the board. Its methods may be called concurrently.
type Job struct {
	board  *Board
	job    server.Job
	sent   time.Time
	stages map[backup.Stage]*span
}

// span is the time of a stage, by its reports.
type span struct {
	first, last time.Time
	once        bool
}

// New returns an empty board.
func New() *Board {
	return &Board{send: func(server.Job) {}, lasting: map[server.Key]map[string]time.Duration{}}
}

// Begin puts a running job on the board.
func (b *Board) Begin(kind string, key server.Key, reason string) *Job {
	j := &Job{
		board: b, stages: map[backup.Stage]*span{},
		job: server.Job{
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

// forget drops the oldest jobs that ended.
func (b *Board) forget() {
	for i := 0; len(b.jobs) > jobsKept && i < len(b.jobs); {
		if b.jobs[i].job.State == server.JobRunning {
			i++
			continue
		}
		b.jobs = slices.Delete(b.jobs, i, i+1)
	}
}

// changed sends a job to the subscriber, which never blocks.
func (b *Board) changed(j *Job) {
	j.sent = time.Now()
	b.send(j.job)
}

// Progress records how far a stage of the job is; it is the job's
// [backup.Progress].
func (j *Job) Progress(stage backup.Stage, done, total int64) {
	j.board.mu.Lock()
	defer j.board.mu.Unlock()
	now := time.Now()
	if s := j.stages[stage]; s != nil {
		s.last, s.once = now, false
	} else {
		j.stages[stage] = &span{now, now, true}
	}
	changed := j.job.Stage != string(stage)
	j.job.Stage, j.job.Done, j.job.Total = string(stage), done, total
	if changed || now.Sub(j.sent) >= sendEvery {
		j.board.changed(j)
	}
}

// Paused notes the pause of the cluster in which the job runs, or does nothing; nil: there
// is none.
func (j *Job) Paused(p *server.Pause) {
	j.board.mu.Lock()
	defer j.board.mu.Unlock()
	j.job.Pause = p
}

// End records what the job came to: its state, the snapshot that it made or
// verified, and its error.
func (j *Job) End(state string, snapshot backup.SnapshotID, err error) {
	j.board.mu.Lock()
	defer j.board.mu.Unlock()
	j.job.State, j.job.Snapshot, j.job.Ended = state, string(snapshot), time.Now().UTC()
	if err != nil {
		j.job.Error = err.Error()
	}
	j.board.changed(j)
}

// Durations returns how long each stage took until now, and all of them ("total").
func (j *Job) Durations() map[string]time.Duration {
	j.board.mu.Lock()
	defer j.board.mu.Unlock()
	out := map[string]time.Duration{"total": time.Since(j.job.Started)}
	for stage, s := range j.stages {
		out[string(stage)] = s.last.Sub(s.first)
		if s.once { // it has told of its begin alone
			out[string(stage)] = time.Since(s.first)
		}
	}
	return out
}

// Current returns the job as it stands.
func (j *Job) Current() server.Job {
	j.board.mu.Lock()
	defer j.board.mu.Unlock()
	return j.job
}

// List returns all jobs, the newest first.
func (b *Board) List() []server.Job {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]server.Job, 0, len(b.jobs))
	for _, j := range slices.Backward(b.jobs) {
		out = append(out, j.job)
	}
	return out
}

// Running reports whether such a job runs.
func (b *Board) Running(kind string, key server.Key) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.ContainsFunc(b.jobs, func(j *Job) bool {
		return j.job.Kind == kind && j.job.Repository == key.Repository && j.job.Cluster == key.Cluster &&
			j.job.State == server.JobRunning
	})
}

// Keep remembers how long the stages of the last snapshot took.
func (b *Board) Keep(key server.Key, lasting map[string]time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lasting[key] = lasting
}

// Last returns how long the stages of the last snapshot took.
func (b *Board) Last(key server.Key) map[string]time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lasting[key]
}

// Subscribe calls send with each job that changes until ctx is done. There is one
// subscriber at a time, and its send never blocks.
func (b *Board) Subscribe(ctx context.Context, send func(server.Job)) {
	b.mu.Lock()
	b.send = send
	b.mu.Unlock()
	<-ctx.Done()
	b.mu.Lock()
	b.send = func(server.Job) {}
	b.mu.Unlock()
}
