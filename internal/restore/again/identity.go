package again

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"google.golang.org/protobuf/proto"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// identity is what etcd takes itself for when it starts on data.
type identity struct{ cluster, member backup.MemberID }

// newest returns the newest file of the WAL in that folder, or "". It is renamed to its name
// when it is whole, so that a crash leaves none without a beginning.
func newest(dir string) (path string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("look for a WAL: %w", err)
	}
	for _, e := range entries { // sorted by name
		var sequence, index uint64
		n, err := fmt.Sscanf(e.Name(), "%016x-%016x.wal", &sequence, &index)
		if err == nil && n == 2 && filepath.Ext(e.Name()) == ".wal" {
			path = filepath.Join(dir, e.Name())
		}
	}
	return path, nil
}

// read reads who the member is: each file of a WAL begins with it.
func read(path string) (*identity, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read WAL: %w", err)
	}
	defer f.Close() // only read from
	d := wal.NewDecoder(fileutil.NewFileReader(f))
	for {
		var rec walpb.Record
		if err := d.Decode(&rec); err != nil {
			return nil, backup.Corruptf("%s does not say whose WAL it is: %v", path, err)
		}
		switch rec.GetType() {
		case wal.CrcType:
			d.UpdateCRC(rec.GetCrc())
		case wal.MetadataType:
			var m etcdserverpb.Metadata
			if err := proto.Unmarshal(rec.Data, &m); err != nil || m.GetClusterID() == 0 {
				return nil, backup.Corruptf("%s does not say whose WAL it is: %v", path, err)
			}
			return &identity{backup.MemberID(m.GetClusterID()), backup.MemberID(m.GetNodeID())}, nil
		default:
			return nil, backup.Corruptf("%s does not begin as a WAL does", path)
		}
	}
}
