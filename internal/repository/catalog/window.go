package catalog

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// ancient is a time before any snapshot can have been taken.
var ancient = time.Date(2010, 1, 1, 0, 0, 0, 0, time.UTC)

// Since returns the second at which a listing must begin to find n snapshots
// before end, and not many more: the start of the smallest window of time that
// holds enough. It is empty if everything has to be listed.
func (c Catalog) Since(ctx context.Context, n int, end backup.SnapshotID) (string, error) {
	start := func(window time.Duration) string { return backup.TimeOf(end.Time().Add(-window)) }
	all := end.Time().Sub(ancient)
	few, many := time.Duration(0), all // windows that hold too few, and enough
	window := time.Hour
	for probe := 0; probe < 9 && window < many && many > 2*few; probe++ {
		enough, err := hasBetween(ctx, c, n, start(window), end)
		if err != nil {
			return "", err
		}
		if enough {
			many = window
		} else {
			few = window
		}
		window = min(16*few, time.Duration(math.Sqrt(float64(few)*float64(many))))
		if few == 0 {
			break // an hour is short
		}
	}
	if many >= all {
		return "", nil
	}
	return start(many), nil
}

// hasBetween reports whether n snapshots were begun at or after from and come
// before end.
func hasBetween(ctx context.Context, c Catalog, n int, from string, end backup.SnapshotID) (bool, error) {
	prefix := backup.ManifestPrefix(c.Cluster)
	for obj, err := range c.List(ctx, prefix, prefix+from) {
		if err != nil {
			return false, fmt.Errorf("list cluster %s: %w", c.Cluster, err)
		}
		if n <= 0 || obj.Name.ID.Time().After(end.Time()) {
			break
		}
		// Within one second the names are not in the order of the revisions.
		if backup.CompareIDs(obj.Name.ID, end) < 0 {
			n--
		}
	}
	return n <= 0, nil
}
