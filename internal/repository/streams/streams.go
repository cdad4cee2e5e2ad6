// Package streams announces snapshot streams in a repository, for whoever would
// defragment a member.
package streams

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// Streams are the announcements of snapshot streams of a cluster. While one is open, its
// member must not be defragmented, by whatever host.
type Streams struct {
	store   storage.Store
	cluster string
}

// Of returns the announcements of a cluster.
func Of(store storage.Store, cluster string) Streams { return Streams{store, cluster} }

// announcement is for people: the name of the object says all that is needed.
type announcement struct {
	By    string    `json:"by"`
	Until time.Time `json:"until"`
}

// endTime bounds the removal of an announcement, which ends by itself anyway.
const endTime = 10 * time.Second

// Announce says that a stream may be open until a time. The caller must call end when it
// no longer is; the error of end matters little, for the announcement ends by itself.
func (s Streams) Announce(ctx context.Context, until time.Time, by string) (end func() error, err error) {
	until = until.UTC().Truncate(time.Second)
	raw, err := json.Marshal(announcement{by, until})
	if err != nil {
		return nil, err
	}
	k := backup.Key{
		Cluster: s.cluster, Kind: backup.KindStream, Data: backup.NewDataName(time.Now()), Until: until,
	}
	if err := s.store.Create(ctx, k.String(), strings.NewReader(string(raw)+"\n")); err != nil {
		return nil, fmt.Errorf("announce snapshot stream: %w", err)
	}
	return func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
		defer cancel()
		return s.store.Delete(ctx, k.String())
	}, nil
}

// Open returns the key of a stream that may be open now, or nil. It removes
// announcements that have ended by themselves, if it may.
func (s Streams) Open(ctx context.Context, now time.Time) (*backup.Key, error) {
	for object, err := range s.store.List(ctx, backup.StreamPrefix(s.cluster), "") {
		if err != nil {
			return nil, fmt.Errorf("list announced snapshot streams: %w", err)
		}
		k, err := backup.ParseKey(object.Key)
		switch {
		case err != nil: // not one of ours
		case now.Before(k.Until):
			return &k, nil
		default:
			_ = s.store.Delete(ctx, object.Key) // a process may not delete; prune does
		}
	}
	return nil, nil
}
