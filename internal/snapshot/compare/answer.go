package compare

import (
	"context"
	"errors"
	"fmt"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/etcddb"
)

// file holds the hashes of one file by compact revision: a member that has compacted
// since the snapshot was taken hashes fewer records.
type file struct {
	path  string
	own   backup.HashKV
	known map[backup.Revision]backup.HashKV
	// damage is why a hash of the file could not be computed.
	damage []string
}

func newFile(path string, own backup.HashKV) *file {
	return &file{path: path, own: own, known: map[backup.Revision]backup.HashKV{own.CompactRevision: own}}
}

// compare compares the answer of a member with the file.
func (f *file) compare(ctx context.Context, r reply) backup.MemberHash {
	out := backup.MemberHash{MemberID: r.member, Endpoint: r.at.Endpoint, Result: backup.HashUnavailable}
	if errors.Is(r.err, cluster.ErrCompacted) {
		out.Result = backup.HashNotComparable
	}
	if r.err != nil {
		out.Detail = r.err.Error()
		return out
	}
	out.Answer = &r.answer
	own, err := f.at(ctx, r.answer.CompactRevision)
	switch {
	case err != nil:
		out.Result, out.Detail = backup.HashNotComparable, err.Error()
	case own.Hash == r.answer.Hash:
		out.Result = backup.HashEqual
	default:
		out.Result = backup.HashDiffers
		out.Detail = fmt.Sprintf("HashKV %d, the snapshot's is %d (revision %d, compact revision %d)",
			r.answer.Hash, own.Hash, r.answer.Revision, r.answer.CompactRevision)
	}
	return out
}

// at returns the hash of the file as a server with this compact revision computes
// it.
func (f *file) at(ctx context.Context, compact backup.Revision) (backup.HashKV, error) {
	if h, ok := f.known[compact]; ok {
		return h, nil
	}
	// A server that is asked for the revision of its last compaction answers with
	// the hash that it stored then. That hash covers records that are gone now.
	if compact < f.own.CompactRevision {
		return backup.HashKV{},
			fmt.Errorf("the member answered for compact revision %d, the snapshot is compacted at %d",
				compact, f.own.CompactRevision)
	}
	h, err := etcddb.HashAt(ctx, f.path, f.own.Revision, compact)
	if errors.Is(err, backup.ErrCorrupt) && len(f.damage) == 0 {
		f.damage = []string{fmt.Sprintf("the hash of the received database cannot be computed: %v", err)}
	}
	if err != nil {
		return backup.HashKV{}, err
	}
	f.known[compact] = h
	return h, nil
}

// compared reports whether a member's answer could be compared with the snapshot.
func compared(h backup.MemberHash) bool {
	return h.Result == backup.HashEqual || h.Result == backup.HashDiffers
}

// notCompared says of each member why its answer could not be compared.
func notCompared(answers []backup.MemberHash) []string {
	if len(answers) == 0 {
		return []string{"no voting member of the cluster is known"}
	}
	var out []string
	for _, a := range answers {
		out = append(out, fmt.Sprintf("member %s could not be compared: %s", a.MemberID, a.Detail))
	}
	return out
}

// contradictions describes the answers that differ from the snapshot or from one
// another.
func contradictions(answers []backup.MemberHash, own backup.HashKV) []string {
	var out []string
	seen := map[backup.HashKV]backup.MemberID{}
	for _, a := range answers {
		if a.Result == backup.HashDiffers {
			out = append(out, fmt.Sprintf("member %s holds other data: %s", a.MemberID, a.Detail))
		}
		if a.Result != backup.HashNotComparable || a.Answer == nil {
			continue
		}
		for other, id := range seen {
			if other.CompactRevision == a.Answer.CompactRevision && other.Hash != a.Answer.Hash {
				out = append(out, fmt.Sprintf("members %s and %s hold different data at revision %d",
					id, a.MemberID, own.Revision))
			}
		}
		seen[*a.Answer] = a.MemberID
	}
	return out
}
