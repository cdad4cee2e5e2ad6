package duty

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/repository/choice"
	"github.com/etcd-backupd/backupd/internal/repository/reread"
	"github.com/etcd-backupd/backupd/internal/retention"
	"github.com/etcd-backupd/backupd/internal/snapshot"
)

// Verify is the duty to read stored snapshots back as a whole.
type Verify struct {
	*Subject
	Policy     retention.Policy
	Identities codec.Identities
}

// Do verifies one snapshot: the one that the run names, else the one whose turn it is. It
// marks the result in the repository. Everything heeds a defect until the snapshot is
// verified again or deleted.
func (v *Verify) Do(ctx context.Context, run Run) Outcome {
	in, item, err := v.find(ctx, run.Snapshot)
	if err == nil {
		if err := run.turn(ctx); err != nil {
			return Outcome{Result: Failed, Snapshot: item.ID, Err: err} // the error says nothing about the snapshot
		}
	}
	var result verdict
	if err != nil {
		result.found = fmt.Errorf("find the snapshot to verify: %w", err)
	} else {
		result = v.verify(ctx, in, item, run.Progress)
	}
	err = result.err()
	var none *repository.NotFoundError // or it was removed meanwhile
	var spent *reread.SpentError
	switch gone := errors.As(err, &none); {
	case errors.As(err, &spent):
		return v.pass(spent)
	case gone && run.Snapshot == "":
		return v.pass(none)
	case gone: // the error says nothing about the cluster
		return Outcome{Result: Failed, Snapshot: item.ID, Err: err}
	}
	if !errors.Is(err, backup.ErrCorrupt) && errors.Is(ctx.Err(), context.Canceled) {
		return Outcome{Result: Failed, Snapshot: item.ID, Err: err} // the error says nothing about the snapshot
	}
	v.ended(ctx, item, result)
	if err != nil {
		return Outcome{Result: Failed, Snapshot: item.ID, Err: err}
	}
	return Outcome{Result: Succeeded, Snapshot: item.ID}
}

// pass ends a run that has nothing to verify. The reason is told only in the log.
func (v *Verify) pass(why error) Outcome {
	v.Log.Info("nothing to verify", "reason", why)
	return Outcome{Result: Passed, Reason: why.Error()}
}

// LastDone returns when a snapshot was last verified, according to the repository. A daemon
// that was down has no other way to know. If there is nothing to verify, nothing was missed.
func (v *Verify) LastDone(ctx context.Context) (time.Time, error) {
	if _, err := v.Look(ctx, v.Policy); err != nil {
		return time.Time{}, err
	}
	f, now := v.Known.Now(), v.Now()
	if f.Overview == nil || v.Rereading.Next(f.Overview.Items, now) == nil {
		return now, nil
	}
	return f.LastVerified(v.Rereading, now), nil
}

// LastVerified returns when a snapshot was last verified, here or, by its mark, anywhere;
// zero: never.
func (f *Facts) LastVerified(p reread.Policy, now time.Time) time.Time {
	last := f.Verified
	if f.Overview == nil {
		return last
	}
	if at := p.Last(f.Overview.Items, now); at.After(last) || last.After(now.Add(backup.Skew)) {
		last = at
	}
	return last
}

// VerifyBy returns the time from which on verifications are missing. It is zero if that is
// not known, or if none is asked for.
func (f *Facts) VerifyBy(p reread.Policy, now time.Time) time.Time {
	if f.Overview == nil {
		return time.Time{}
	}
	return p.Deadline(f.Overview.Items, f.Verified, now)
}

// VerificationFailed reports whether the last verification could not be finished. One that
// another process finished since says more. Damage is seen in the overview.
func (f *Facts) VerificationFailed(p reread.Policy, now time.Time) bool {
	return f.Verification != nil && !errors.As(f.Verification, new(*backup.DefectError)) &&
		!f.LastVerified(p, now).After(f.Reread)
}

// unverified reports whether scheduled verifications are missing.
func (f *Facts) unverified(p reread.Policy, now time.Time) bool {
	by := f.VerifyBy(p, now)
	return !by.IsZero() && now.After(by)
}

// find returns the snapshot to verify.
func (v *Verify) find(ctx context.Context, ref string) (*repository.Cluster, repository.Item, error) {
	in, err := v.Open(ctx)
	if v.MayCreate && errors.Is(err, fs.ErrNotExist) {
		return nil, repository.Item{}, &repository.NotFoundError{Reason: "there is no repository yet"}
	}
	if err != nil {
		return nil, repository.Item{}, err
	}
	if ref != "" {
		item, err := choice.FindIn(ctx, in, ref)
		return in, item, err
	}
	item, err := v.next(ctx, in)
	return in, item, err
}

// next returns the snapshot whose turn it is. It returns a [*reread.SpentError] if it may not be
// read today.
func (v *Verify) next(ctx context.Context, in *repository.Cluster) (repository.Item, error) {
	var items []repository.Item
	for i, err := range in.Items(ctx) {
		if err != nil {
			return repository.Item{}, err
		}
		items = append(items, i)
	}
	next := v.Rereading.Next(items, v.Now())
	if next == nil {
		return repository.Item{}, &repository.NotFoundError{
			Reason: "no such snapshot: the repository holds no verified one of cluster " + in.Name(),
		}
	}
	used := max(reread.Today(items, v.Now()), v.Known.meter.On(v.Now()))
	if !v.Rereading.Affords(next, used) {
		return repository.Item{}, &reread.SpentError{Next: *next, Used: used, All: v.Rereading.BytesPerDay}
	}
	return *next, nil
}

func (v *Verify) verify(
	ctx context.Context, in *repository.Cluster, item repository.Item, p backup.Progress,
) (out verdict) {
	count, done := v.Known.meter.Count(p, v.Now)
	defer done()
	verifier := &snapshot.Verifier{
		Cluster: in, Identities: v.Identities, Spool: v.Spool, Progress: count, Now: v.Now,
	}
	m, err := in.Manifest(ctx, item)
	if err == nil && m.Encoding.Encryption != "" && len(v.Identities) == 0 {
		verifier.Depth = snapshot.StoredOnly // only the stored bytes can be compared here
	}
	_, out.found = verifier.Verify(ctx, item)
	// A defect counts even if it cannot be marked. Then both errors are returned.
	count(backup.StageMark, 0, 0)
	out.mark, out.unrecorded = v.record(ctx, verifier, item, out.found)
	out.disputed = out.found == nil && out.unrecorded != nil && item.Marked(backup.MarkDamaged)
	if out.err() == nil && item.Marked(backup.MarkDamaged) {
		// The mark may stay: stored bytes cannot disprove each defect.
		out.found = stillMarked(ctx, in, item)
	}
	return out
}

// record marks the result. The store was read for long, but it may hang by now.
func (v *Verify) record(
	ctx context.Context, by *snapshot.Verifier, item repository.Item, found error,
) (backup.Key, error) {
	ctx, cancel := v.reaching(ctx)
	defer cancel()
	k, err := by.Record(ctx, item, found, Host("backupd"))
	return k, because(ctx, err)
}

// stillMarked returns the defect that the repository has on record.
func stillMarked(ctx context.Context, in *repository.Cluster, item repository.Item) error {
	now, err := in.Item(ctx, item.ID)
	switch {
	case errors.As(err, new(*repository.NotFoundError)):
		return nil // nothing is left of it
	case err != nil || !now.Marked(backup.MarkDamaged):
		return err
	}
	return now.Defect()
}

// ended notes the result, so that nothing counts on a snapshot that was found
// damaged.
func (v *Verify) ended(ctx context.Context, item repository.Item, result verdict) {
	var defect *backup.DefectError
	damaged := errors.As(result.found, &defect)
	if damaged && defect.Kind == backup.Doubted {
		return // the name of its manifest says so already
	}
	v.Known.judged(item.ID, result, v.Now())
	if !damaged && !item.Marked(backup.MarkDamaged) {
		return
	}
	// Now an older snapshot counts, or this one counts again. Its manifest may not
	// have been read yet.
	if _, err := v.Look(ctx, v.Policy); err != nil {
		v.Log.Warn("repository cannot be read", "err", err)
	}
}
