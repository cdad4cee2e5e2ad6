package duty

import (
	"context"
	"errors"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster/defrag"
	"github.com/etcd-backupd/backupd/internal/repository/streams"
)

// Defragment is the duty to return the free pages of the members' databases to the
// file system.
type Defragment struct {
	*Subject
	// Threshold is the part of a database that must be free, 0 to 1.
	Threshold float64
	// Patience is how long a member may answer nothing, besides the time that its size
	// takes. Zero means 10 seconds.
	Patience time.Duration
}

// awake ends the trouble of a member that hung, once it answers a read.
func (s *Subject) awake(ctx context.Context) {
	var hung *defrag.HungError
	if !errors.As(s.Known.Now().Hung, &hung) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := defrag.Read(ctx, s.Etcd, hung.Endpoint); err == nil {
		s.Log.Info("the member answers again", "member", hung.Name, "endpoint", hung.Endpoint)
		s.Known.change(func(f *Facts) { f.Hung = nil })
	}
}

// Do defragments the members whose databases have enough free pages, one after the
// other. A failure stays known until a try ends without one; that a member hangs is known
// by itself, for as long as it does.
func (d *Defragment) Do(ctx context.Context, run Run) Outcome {
	if why := pausedNow(ctx, d.Subject, run.Why); why != "" {
		d.Log.Info("nothing to do", "reason", why)
		return Outcome{Result: Paused, Reason: why}
	}
	o := d.try(ctx, run)
	if errors.Is(ctx.Err(), context.Canceled) {
		return o // the process ends, and nothing was wrong
	}
	failure := o.Err
	if errors.As(failure, new(*defrag.HungError)) {
		failure = nil
	}
	d.Known.change(func(f *Facts) { f.Defragmented = failure })
	return o
}

func (d *Defragment) try(ctx context.Context, run Run) Outcome {
	// A dead cluster fails here, without a turn.
	survey, err := d.Etcd.Survey(ctx)
	if err != nil {
		return failed(err)
	}
	other, err := d.elsewhere(ctx, survey, run.Why, 0)
	if err != nil {
		return failed(err)
	}
	if other != "" {
		d.Log.Info("nothing to do", "reason", other)
		return Outcome{Result: Passed, Reason: other}
	}
	if err := run.turn(ctx); err != nil {
		return failed(err)
	}
	end, alone := d.Streams.Alone(survey.ClusterID)
	if !alone {
		return failed(defrag.BesideStream("this process takes a snapshot of the cluster for another repository"))
	}
	defer end()
	report, err := defrag.Run(ctx, d.Etcd, defrag.Options{
		Threshold: d.Threshold, Patience: d.Patience, Log: d.Log, Streams: d.streaming,
		Trouble: func(err error) {
			d.Log.Error("a member hangs", "err", err)
			d.Known.change(func(f *Facts) { f.Hung = err })
			if run.Trouble != nil {
				run.Trouble(err)
			}
		},
	})
	if !errors.As(err, new(*defrag.HungError)) {
		d.Known.change(func(f *Facts) { f.Hung = nil })
	}
	if err != nil {
		return failed(err) // whoever asked logs it, and each member that was done is in the log
	}
	d.Log.Info("defragmentation ended", "report", report)
	return Outcome{Result: Succeeded}
}

// errAnnounced is the refusal because of an announcement. A process that was killed leaves
// its own, and only a person can know that.
func (d *Defragment) errAnnounced(open *backup.Key) error {
	return backup.WithHint(defrag.BesideStream("one was announced at %s and may run until %s (%s in the repository)",
		open.Data.Time().Format("15:04:05 MST"), open.Until.Format("15:04:05 MST"), open),
		"%s; if the process that announced it was killed, remove the announcement, and the next slot defragments: %s",
		defrag.AgainHint, d.Removal(open.String()))
}

// streaming returns an error if a process of ours may be streaming a snapshot from the
// cluster, on whatever host.
func (d *Defragment) streaming(ctx context.Context) error {
	in, err := d.Open(ctx)
	if err != nil {
		return defrag.BesideStream("whether one runs is not known: %v", err)
	}
	open, err := streams.Of(in.Repository().Store(), d.Cluster).Open(ctx, d.Now())
	if err != nil {
		return defrag.BesideStream("whether one runs is not known: %v", err)
	}
	if open != nil {
		return d.errAnnounced(open)
	}
	return nil
}
