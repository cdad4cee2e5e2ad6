package daemon

import (
	"log/slog"
	"reflect"
	"sync"
	"time"

	"github.com/etcd-backupd/backupd/internal/duty"
	"github.com/etcd-backupd/backupd/internal/notify"
	"github.com/etcd-backupd/backupd/internal/record"
	"github.com/etcd-backupd/backupd/internal/spool"
)

// memory keeps a record of each cluster beside the spool, for the next process.
type memory struct {
	fleet    *fleet
	notifier *notify.Notifier
	wall     func() time.Time
	log      *slog.Logger

	mu      sync.Mutex // held while a record is written
	written map[duty.Key]record.Record
	failed  bool // the last write
}

// recall returns the record of a cluster whose repository is at an address, or nil.
func (m *memory) recall(folder spool.Folder, k duty.Key, address string) *record.Record {
	r, err := record.Read(folder.Path(), k.Repository, k.Cluster, m.wall())
	switch {
	case err != nil:
		m.log.Error("the record of an earlier process is ignored: what it knew is not known", "err", err)
		return nil
	case r != nil && r.Address != address:
		m.log.Warn("the record of an earlier process is ignored: the repository had another address",
			"repository", k.Repository, "cluster", k.Cluster, "address", r.Address)
		return nil
	}
	return r
}

// remind gives the notifier what an earlier process told.
func (m *memory) remind() {
	folder := spoolOf(m.fleet.config(), m.log)
	subjects := []*duty.Subject{{}} // and what concerns no cluster alone
	for _, g := range m.fleet.all() {
		subjects = append(subjects, g.Subject)
	}
	for _, s := range subjects {
		// A record that is ignored was logged when the guard was made.
		r, err := record.Read(folder.Path(), s.Repository, s.Cluster, m.wall())
		if err == nil && r != nil && r.Address == s.Address {
			m.notifier.Recall(s.Repository, s.Cluster, r.Notifications)
		}
	}
}

// keep writes what is known of a cluster, if that has changed.
func (m *memory) keep(s *duty.Subject) { m.write(s.Record()) }

// told keeps what a receiver has heard.
func (m *memory) told(e notify.Event) {
	if e.Cluster == "" {
		m.write(record.Record{})
		return
	}
	if g, err := m.fleet.guard(duty.Key{Repository: e.Repository, Cluster: e.Cluster}); err == nil {
		m.keep(g.Subject)
	}
}

func (m *memory) write(r record.Record) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r.Notifications = m.notifier.Remember(r.Repository, r.Cluster)
	k := duty.Key{Repository: r.Repository, Cluster: r.Cluster}
	if reflect.DeepEqual(r, m.written[k]) {
		return
	}
	after := r
	after.WrittenAt = m.wall().UTC()
	folder := spoolOf(m.fleet.config(), m.log)
	err := record.Write(folder.Path(), after)
	if err == nil {
		m.written[k] = r
	} else if !m.failed {
		m.log.Error("what is known of the clusters is not kept for the next process", "err", err)
	}
	m.failed = err != nil
}
