package reread

import (
	"fmt"

	"github.com/dustin/go-humanize"

	"github.com/etcd-backupd/backupd/internal/repository"
)

// SpentError is returned if the bytes that may be read in one day are not enough.
type SpentError struct {
	Next      repository.Item
	Used, All int64 // bytes
}

func (e *SpentError) Error() string {
	return fmt.Sprintf("snapshot %s is next: its %s are more than is left today of verify.max-bytes-per-day, %s of %s",
		e.Next.ID, humanize.IBytes(uint64(e.Next.StoredBytes())), humanize.IBytes(uint64(max(e.All-e.Used, 0))),
		humanize.IBytes(uint64(e.All)))
}
