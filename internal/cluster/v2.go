package cluster

import (
	"context"
	"strings"

	"github.com/etcd-backupd/backupd/internal/check/greet"
	"github.com/etcd-backupd/backupd/internal/check/release"
)

// HasV2Keys reports whether a member also serves keys of etcd's v2 API (--enable-v2). They
// are not in its database, and so in no snapshot. etcd 3.6 has dropped that API.
func (c *Cluster) HasV2Keys(ctx context.Context, of Candidate) bool {
	base := c.cfg.URL(of.Endpoint)
	if v, ok := release.Parse(of.Version); !ok || v.Major != 3 || v.Minor >= 6 || !strings.HasPrefix(base, "http") {
		return false
	}
	conf, err := c.cfg.TLS()
	if err != nil {
		return false // the member answered: the files were right a moment ago
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.RequestTimeout)
	defer cancel()
	return greet.HasV2Keys(ctx, strings.TrimSuffix(base, "/"), conf)
}
