package copies

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/repository/catalog"
	"github.com/etcd-backupd/backupd/internal/repository/lineage"
)

// related refuses a destination that has another cluster under the name of the source's: then
// nobody could tell any more which history is the present one. Both are of one cluster if
// they have a timeline in common, for the names of timelines are random, or if a timeline of
// one began after one of the other.
func related(from, to *repository.Overview, accepted []lineage.Acceptance) error {
	if len(from.Timelines) == 0 || len(to.Timelines) == 0 {
		return nil
	}
	common := false
	for n := range from.Timelines {
		f := &from.Timelines[n]
		t := to.Timelines.Find(f.Name)
		if t == nil {
			continue
		}
		common = true
		if one, other := clusterIDOf(f), clusterIDOf(t); one != 0 && other != 0 && one != other {
			return otherCluster(from, f, t)
		}
	}
	if common || follows(from.Timelines, to.Timelines) || follows(to.Timelines, from.Timelines) {
		return nil
	}
	for _, a := range accepted {
		for ended := range a.Ended {
			if to.Timelines.Find(ended) != nil {
				return nil
			}
		}
	}
	return otherCluster(from, &from.Timelines[0], &to.Timelines[0])
}

// follows reports whether a timeline of the first began after one of the second.
func follows(of, after repository.Timelines) bool {
	return slices.ContainsFunc(of, func(t repository.Timeline) bool {
		return t.Manifest != nil && t.Manifest.Origin != nil && after.Find(t.Manifest.Origin.Timeline) != nil
	})
}

func otherCluster(in *repository.Overview, from, to *repository.Timeline) error {
	return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
		"the destination has another cluster under the name %s, or another history of it: timeline %s (%s) is there, "+
			"and timeline %s (%s) at the source has nothing in common with it", in.Cluster,
		to.Name, clusterOf(to), from.Name, clusterOf(from))},
		"copy it into another repository: a new one is made by 'backupd init'")
}

// clusterIDOf returns the cluster that a timeline is of, or 0 if that is not known: an imported
// snapshot does not tell it, and a backup may continue the timeline of one.
func clusterIDOf(t *repository.Timeline) backup.MemberID {
	if t.Manifest == nil {
		return 0
	}
	return t.Manifest.ClusterID
}

// clusterOf names the cluster and the furthest snapshot of a timeline.
func clusterOf(t *repository.Timeline) string {
	id := "unknown"
	if known := clusterIDOf(t); known != 0 {
		id = known.String()
	}
	return fmt.Sprintf("cluster id %s, up to snapshot %s", id, t.Head.ID)
}

// acceptances compares what the two repositories state of the histories. It notes in the plan
// what the destination lacks, and returns what the source states and what counts there.
func (c *Copier) acceptances(
	ctx context.Context, from, to *repository.Overview, p *Plan,
) ([]lineage.Acceptance, error) {
	source, destination := objectsOf(c.From), objectsOf(c.To)
	stated, err := source.All(ctx, backup.AcceptancePrefix(c.From.Name()))
	if err != nil || len(stated) == 0 {
		return nil, err
	}
	held, err := destination.All(ctx, backup.AcceptancePrefix(c.To.Name()))
	if err != nil {
		return nil, err
	}
	var out []lineage.Acceptance
	for _, o := range stated {
		raw, a, err := acceptance(ctx, source, o.Name)
		if err != nil {
			return nil, fmt.Errorf("read from the source: %w", err)
		}
		if a == nil || !counts(a, from, to) {
			continue
		}
		out = append(out, *a)
		if !slices.ContainsFunc(held, func(h catalog.Object) bool { return h.Name == o.Name }) {
			p.Acceptances = append(p.Acceptances, o.Name)
			continue
		}
		there, _, err := acceptance(ctx, destination, o.Name)
		if err != nil {
			return nil, fmt.Errorf("read from the destination: %w", err)
		}
		if !bytes.Equal(raw, there) {
			p.Disputed = append(p.Disputed, disputed(o.Name, a))
		}
	}
	return out, nil
}

func disputed(k backup.Key, a *lineage.Acceptance) Disputed {
	return Disputed{k, fmt.Sprintf("the destination has another version of this statement; that of the source is "+
		"by %s at %s: %s", a.By, a.At.Format("2006-01-02T15:04:05Z07:00"), a.Reason)}
}

// counts reports whether an acceptance is about a timeline that there is. What a restore has
// announced, and nobody has backed up, may still be taken back.
func counts(a *lineage.Acceptance, from, to *repository.Overview) bool {
	if a.Timeline != "" {
		return from.Timelines.Find(a.Timeline) != nil || to.Timelines.Find(a.Timeline) != nil
	}
	return slices.ContainsFunc(from.Timelines, func(t repository.Timeline) bool {
		return t.Manifest != nil && t.Manifest.ClusterID == a.ClusterID
	})
}

// acceptance reads one. What is parsed is nil if it accepts nothing, or is gone.
func acceptance(ctx context.Context, in catalog.Catalog, k backup.Key) ([]byte, *lineage.Acceptance, error) {
	raw, err := in.Read(ctx, k.String(), backup.MaxManifestBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", k, err)
	}
	a, err := lineage.Parse(raw)
	if err != nil || a.ObjectKey(in.Cluster) != k {
		return raw, nil, nil
	}
	return raw, a, nil
}

func objectsOf(c *repository.Cluster) catalog.Catalog {
	return catalog.Catalog{Store: c.Repository().Store(), Cluster: c.Name()}
}
