package storage

import (
	"context"
	"io"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// DownloadParts is Download with ranges of another size and number.
func DownloadParts(ctx context.Context, s Store, obj Object, partBytes int64, parts int) io.ReadCloser {
	return newDownload(ctx, s, obj, partBytes, parts)
}

// Resuming reads an object as Download reads one range.
func Resuming(ctx context.Context, s Store, obj Object) io.ReadCloser {
	return &resuming{ctx: ctx, store: s, pin: newPin(obj), end: obj.Size}
}

// ProbeParts is Probe with a large object of another size.
func ProbeParts(ctx context.Context, s Store, partBytes int64) []backup.Finding {
	return probeParts(ctx, s, partBytes)
}
