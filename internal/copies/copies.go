// Package copies brings the snapshots of one repository into another: their stored bytes,
// which it neither decrypts nor decodes, and their manifests, byte for byte. What is missing
// is what the listings of the two say: it keeps no state of its own. It overwrites nothing,
// and the only thing that it removes is a manifest that it has just made: if the destination did
// not keep it as it was sent, or removes the snapshot at that moment.
package copies

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
)

// Copier copies the snapshots of one cluster. It only reads From.
type Copier struct {
	From, To *repository.Cluster
	// Since leaves out what was begun before; zero leaves nothing out.
	Since time.Time
	// Only, if it is not empty, is the one snapshot that is copied.
	Only backup.SnapshotID
	// Also are the states that are copied besides [backup.Verified].
	Also []backup.State
	// Rate bounds the bytes that are read, and those that are read back, per second; 0 is no
	// bound.
	Rate     int64
	Progress backup.Progress // may be nil
	Log      *slog.Logger    // default: discards
}

// Plan says what a run will copy. It is made before anything is touched.
type Plan struct {
	Cluster string
	// Missing are the snapshots that will be copied, the newest first.
	Missing []repository.Item
	// LeftOut are those that will not, the newest first.
	LeftOut []LeftOut
	// Held are how many snapshots the destination has already.
	Held int
	// Pins are of snapshots that the destination has, and that are pinned at the source only.
	Pins []backup.Key
	// Acceptances say which history is the present one, and are missing at the destination.
	Acceptances []backup.Key
	// Disputed are those of which the destination has another version.
	Disputed []Disputed
}

// Bytes returns the size of the data that is missing.
func (p *Plan) Bytes() int64 {
	n := int64(0)
	for n2 := range p.Missing {
		n += p.Missing[n2].StoredBytes()
	}
	return n
}

// Disputed is an acceptance of which the destination has another version, which stays.
type Disputed struct {
	Key    backup.Key
	Reason string
}

// LeftOut is a snapshot that is not copied.
type LeftOut struct {
	Item   repository.Item
	Cause  Cause
	Reason string // for people
}

// Cause says what kind of reason there is to leave a snapshot out.
type Cause string

// Causes.
const (
	// ByState: it is not verified at the source, and nobody asked for such ones.
	ByState Cause = "state"
	// Removed: the destination has removed it on purpose, or the source meanwhile.
	Removed Cause = "removed"
	// Waiting: something that is left at the destination must be removed first.
	Waiting Cause = "waiting"
	// Withheld: the source does not give it, although it is there.
	Withheld Cause = "withheld"
	// Differs: the destination holds something else under its names.
	Differs Cause = "differs"
	// Damaged: its bytes at the source, or those at the destination, are not what they were.
	Damaged Cause = "damaged"
)

// Plan decides what is missing by the listings of both repositories. It changes nothing. It
// returns a [*backup.RefusedError] if both are one repository, or if the destination has
// another cluster under that name, and a [*repository.NotFoundError] if Only is not there.
func (c *Copier) Plan(ctx context.Context, now time.Time) (*Plan, error) {
	if c.From.Name() != c.To.Name() {
		return nil, fmt.Errorf("copy cluster %s to the place of cluster %s", c.From.Name(), c.To.Name())
	}
	if err := Apart(c.From.Repository(), c.To.Repository()); err != nil {
		return nil, err
	}
	from, err := c.From.Look(ctx, 1, nil, now)
	if err != nil {
		return nil, fmt.Errorf("look at the source: %w", err)
	}
	to, err := c.To.Look(ctx, 1, nil, now)
	if err != nil {
		return nil, fmt.Errorf("look at the destination: %w", err)
	}
	if c.Only != "" && !from.Holds(c.Only) {
		return nil, &repository.NotFoundError{Reason: "no such snapshot at the source: " + string(c.Only)}
	}
	p := &Plan{Cluster: c.From.Name()}
	accepted, err := c.acceptances(ctx, from, to, p)
	if err != nil {
		return nil, err
	}
	if err := related(from, to, accepted); err != nil {
		return nil, err
	}
	held := newHoldings(to)
	for _, i := range slices.Backward(from.Items) {
		if c.wanted(&i) {
			c.place(ctx, p, i, held)
		}
	}
	return p, nil
}

// Apart refuses to copy a repository into itself. The id tells two addresses of one
// repository from two repositories: each place has one marker. Of a place that another tool
// has copied as a whole nobody can say which of the two it is.
func Apart(from, to *repository.Repository) error {
	if to.ID() == "" || from.ID() == to.ID() {
		return &backup.RefusedError{Reason: fmt.Sprintf("the source and the destination are one repository, %s, or "+
			"another tool has copied its marker, too: a copy needs a place with a marker of its own, which 'backupd init' "+
			"makes", to.ID())}
	}
	return nil
}

// wanted reports whether the caller asked for the snapshot, whatever its state.
func (c *Copier) wanted(i *repository.Item) bool {
	return (c.Only == "" || i.ID == c.Only) && !i.ID.Time().Before(c.Since)
}

// place decides about one snapshot of the source.
func (c *Copier) place(ctx context.Context, p *Plan, i repository.Item, held *holdings) {
	out := func(cause Cause, format string, args ...any) {
		p.LeftOut = append(p.LeftOut, LeftOut{i, cause, fmt.Sprintf(format, args...)})
	}
	there, rest := held.find(&i)
	switch {
	case there != nil:
		if cause, reason := c.compare(ctx, &i, there); cause != "" {
			out(cause, "%s", reason)
			return
		}
		if there.State() == backup.Damaged && !slices.Contains(c.Also, backup.Damaged) {
			out(ByState, "at both places %s", stateOf(&i))
			return
		}
		p.Held++
		if i.Pinned() && !there.Pinned() {
			p.Pins = append(p.Pins, repository.MarkKey(&i, backup.MarkPin))
		}
	case rest.claimed:
		out(Differs, "another version of backupd may have written its manifest at the destination: %s",
			rest.name)
	case i.Clash():
		out(ByState, "%s: %v", backup.Damaged, i.Defect())
	case i.State() != backup.Verified && !slices.Contains(c.Also, i.State()):
		out(ByState, "%s", stateOf(&i))
	case i.Denied != nil:
		out(Withheld, "%v", i.Denied)
	case rest.removed != "" && c.Only == "":
		out(Removed, "the destination has removed it: %s", rest.removed)
	case rest.removed != "" && len(rest.data) > 0:
		out(Waiting, "the destination removes it just now, or did not get to the end of that: "+
			"'backupd prune' there removes what is left")
	case rest.foreign(&i) != "":
		out(Differs, "the destination has %s, the source does not", rest.foreign(&i))
	default:
		p.Missing = append(p.Missing, i)
	}
}

// stateOf is the state of a snapshot with the reason, as far as it is known.
func stateOf(i *repository.Item) string {
	if defect := i.Defect(); defect != nil {
		return fmt.Sprintf("%s: %v", backup.Damaged, defect)
	}
	return string(i.State())
}
