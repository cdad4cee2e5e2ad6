package members

import (
	"fmt"
	"slices"
	"strings"

	"go.etcd.io/etcd/client/pkg/v3/types"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// CheckAdvertised returns a [*backup.RefusedError] for advertised URLs that are not those of
// the initial cluster: the member would not find itself in it. Two spellings of one address are the same, as for etcd.
func CheckAdvertised(m backup.Member, advertised []string) error {
	if len(advertised) == 0 {
		return nil
	}
	urls, err := types.NewURLs(advertised)
	if err != nil {
		return fmt.Errorf("parse --initial-advertise-peer-urls: %w", err)
	}
	own, err := types.NewURLs(m.PeerURLs)
	if err != nil {
		return fmt.Errorf("peer URLs of member %s: %w", m.Name, err)
	}
	a, b := Canonical(urls), Canonical(own)
	if slices.Equal(a, b) {
		return nil
	}
	return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
		"--initial-advertise-peer-urls=%s, but --initial-cluster has %s for member %s",
		strings.Join(a, ","), strings.Join(b, ","), m.Name)},
		"make the two agree, or leave --initial-advertise-peer-urls out")
}
