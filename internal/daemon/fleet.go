package daemon

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/etcd-backupd/backupd/internal/config"
	"github.com/etcd-backupd/backupd/internal/duty"
	"github.com/etcd-backupd/backupd/internal/retention"
	"github.com/etcd-backupd/backupd/internal/server"
)

// fleet holds the guards of the current configuration.
type fleet struct {
	mu     sync.Mutex // guards what a reload replaces
	conf   *config.Config
	guards []*guard
}

// all returns the current guards.
func (f *fleet) all() []*guard {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.guards
}

// config returns the current configuration.
func (f *fleet) config() *config.Config {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.conf
}

// guard returns the guard of a key.
func (f *fleet) guard(key duty.Key) (*guard, error) {
	for _, g := range f.all() {
		if g.Key == key {
			return g, nil
		}
	}
	return nil, fmt.Errorf("cluster %s: %w", key, server.ErrNotFound)
}

// policy returns the retention of the cluster that a guard is of, as it is now. It
// reports false if the cluster is no longer protected in the same repository.
func (f *fleet) policy(of *guard) (retention.Policy, bool) {
	now, err := f.guard(of.Key)
	if err != nil || now.Known != of.Known { // which guards of one repository share
		return retention.Policy{}, false
	}
	return now.backup.Policy, true
}

// named returns the guards of the named clusters, or all.
func (f *fleet) named(names []string) ([]*guard, error) {
	all := f.all()
	if len(names) == 0 {
		return all, nil
	}
	var out []*guard
	for _, name := range names {
		found := false
		for _, g := range all {
			if g.Cluster != name {
				continue
			}
			found = true
			if !slices.Contains(out, g) {
				out = append(out, g)
			}
		}
		if !found {
			return nil, fmt.Errorf("cluster %s: %w", name, server.ErrNotFound)
		}
	}
	return out, nil
}

// enter returns the guard of a key. The caller must call leave on it.
func (f *fleet) enter(key duty.Key) (*guard, error) {
	f.mu.Lock() // so that it is not replaced and retired in between
	defer f.mu.Unlock()
	for _, g := range f.guards {
		if g.Key == key && g.enter() {
			return g, nil
		}
	}
	return nil, fmt.Errorf("cluster %s is no longer guarded", key)
}

// replace sets the guards of a new configuration and returns the old ones.
func (f *fleet) replace(conf *config.Config, guards []*guard, now time.Time) (before []*guard) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before = f.guards
	for _, old := range before {
		for _, g := range guards {
			if g.Known == old.Known && !g.backup.Line.Equal(old.backup.Line) {
				g.Known.Reschedule(now)
			}
		}
	}
	f.conf, f.guards = conf, guards
	return before
}

// retire retires the guards of old that are not in current.
func retire(old, current []*guard) {
	for _, g := range old {
		if !slices.Contains(current, g) {
			g.retire()
		}
	}
}
