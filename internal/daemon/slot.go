package daemon

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/etcd-backupd/backupd/internal/textfile"
)

// Slot returns what the daemon would expose of the clusters that [Guards.Once] has backed up.
func (g *Guards) Slot(done []Outcome) (textfile.Slot, error) {
	now := prometheus.NewRegistry() // the metrics of a daemon have none of a slot
	now.MustRegister(&gauges{g.fleet, g.jobs, nil, g.opts.Version, g.opts.Now, g.opts.Log})
	var out textfile.Slot
	var err error
	if out.Families, err = (prometheus.Gatherers{g.jobs.metrics.Gatherer(), now}).Gather(); err != nil {
		return out, fmt.Errorf("gather metrics: %w", err)
	}
	for _, o := range done {
		guard, err := g.fleet.guard(o.Key)
		if err != nil {
			return out, err
		}
		r := guard.Record()
		out.Clusters = append(out.Clusters, textfile.Cluster{
			Repository: r.Repository, Cluster: r.Cluster, Address: r.Address, Newest: r.Newest,
		})
	}
	return out, nil
}
