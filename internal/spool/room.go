package spool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/disk"
)

// levels are the free bytes below which something gives way, so that the file system
// never fills: an etcd whose data lies there would end. What is lost first is what can be
// had again for the least.
type levels struct {
	begin   int64 // what is left when a database was received
	copies  int64 // decoded copies of what is stored
	waiting int64 // snapshots that wait for their store: the oldest first, at last the newest
	streams int64 // databases that are being received
	uploads int64 // complete databases that are being stored: they are about to go by themselves
}

func levelsOf(reserve int64) levels {
	reserve = min(reserve, 1<<62) // a tenth more must not overflow
	return levels{
		begin: reserve + reserve/10, copies: reserve + reserve/10, waiting: reserve + reserve/20,
		streams: reserve, uploads: reserve - reserve/4,
	}
}

// FewestFiles is how many files must be free to make a spool. It takes three, and etcd
// makes files too.
const FewestFiles = 16

// Usable returns how many bytes of a file system spools can take beside the reserve.
func Usable(fs disk.FileSystem, reserve int64) int64 { return max(0, fs.Free-levelsOf(reserve).begin) }

// Never says why no spool of a database of the given bytes can begin, however much is
// removed from the file system; "" if one can. 0 is a database whose size is not known.
func Never(fs disk.FileSystem, reserve, database int64) string {
	begin, need := levelsOf(reserve).begin, disk.RoomFor(database)
	if fs.Total-begin >= need {
		return ""
	}
	return fmt.Sprintf("no backup can ever begin: the file system has %s, %s must stay free, and a spool needs %s",
		disk.Size(fs.Total), disk.Size(begin), disk.Size(need))
}

// Room returns the file system of the folder, and how many of its bytes must stay free.
func (f *Folder) Room() (fs disk.FileSystem, reserve int64, err error) {
	fs, err = disk.FileSystemOf(f.Path())
	return fs, f.MinFree.Of(fs), err
}

// MakeWay drops pending spools if free space falls towards the reserve. A daemon calls it
// every few seconds.
func (f *Folder) MakeWay() error {
	fs, reserve, err := f.Room()
	if err != nil {
		return err
	}
	missing := levelsOf(reserve).waiting - fs.Free
	if missing <= 0 {
		return nil
	}
	return (room{f}).dropWaiting(missing,
		fmt.Sprintf("folder %s has %s free, and %s must stay free for others",
			f.Path(), disk.Size(fs.Free), disk.Size(reserve)))
}

// room decides what gives way in a folder.
type room struct{ *Folder }

// prepare makes sure that need bytes can be written without touching the reserve. Older
// pending spools give way.
func (f room) prepare(need int64) error {
	fs, reserve, err := f.Room()
	if err != nil {
		return err
	}
	want := need + levelsOf(reserve).begin
	if fs.Free < want && f.Keep && f.giveWay(want-fs.Free) {
		if fs, _, err = f.Room(); err != nil {
			return err
		}
	}
	if fs.Files > 0 && fs.Left < FewestFiles {
		return backup.WithHint(fmt.Errorf("folder %s: its file system has room for only %d more files, "+
			"whatever their size: %w", f.Path(), fs.Left, unix.ENOSPC),
			"remove files from the file system (df -i shows how many it has), or choose another folder")
	}
	if fs.Free < want {
		return f.noRoom(fmt.Errorf(
			"folder %s has %s free: the database needs %s, and %s must stay free for others: %w",
			f.Path(), disk.Size(fs.Free), disk.Size(need), disk.Size(want-need), unix.ENOSPC))
	}
	return nil
}

// noRoom adds what a person can do.
func (f room) noRoom(err error) error {
	setting := f.Setting
	if setting == "" {
		setting = "the reserve of the spool"
	}
	return backup.WithHint(err,
		"free some space, choose another folder, or lower %s if no etcd and no kubelet needs the room", setting)
}

// allot sets need bytes aside for s, so that other processes count them, and makes sure
// that the folder's limit and the reserve hold with them.
func (f room) allot(s *File, need int64) error {
	// Writing into allocated blocks is also quicker than allocating them when the
	// kernel writes back.
	disk.Allocate(s.f, need)
	if err := f.checkLimit(s, need); err != nil {
		return err
	}
	// Another process may have taken the same room at the same moment.
	fs, reserve, err := f.Room()
	if err == nil && fs.Free < levelsOf(reserve).streams {
		err = f.noRoom(fmt.Errorf(
			"folder %s has %s free with the room for the database, and %s must stay free for others: %w",
			f.Path(), disk.Size(fs.Free), disk.Size(reserve), unix.ENOSPC))
	}
	return err
}

// checkLimit makes room for need bytes in s within the limit of the folder.
func (f room) checkLimit(s *File, need int64) error {
	if f.Limit <= 0 {
		return nil
	}
	others, err := f.bytes(s.path)
	if err != nil {
		return err
	}
	excess := others + need - f.Limit
	if excess <= 0 || f.Keep && f.giveWay(excess) {
		return nil
	}
	return backup.WithHint(fmt.Errorf("spool folder %s may hold %d bytes: the database needs %d and %d are taken: %w",
		f.Path(), f.Limit, need, others, unix.ENOSPC),
		"raise daemon.spool.max-bytes, or read in the log why the pending snapshots are not stored")
}

// giveWay drops pending spools, the oldest first, until at least excess bytes are
// free, and reports whether they are. The newest of each cluster stays. If the
// others are not enough it drops none.
func (f room) giveWay(excess int64) bool {
	all, err := f.entries()
	if err != nil {
		return false
	}
	all = slices.DeleteFunc(all, func(e entry) bool { return e.err != nil || disk.InUse(e.path) })
	newest := newestOf(all)
	var victims []entry
	gain := int64(0)
	for _, e := range all {
		if gain < excess && !newest[e.path] {
			victims = append(victims, e)
			gain += e.pending.Capture.Plain.Bytes
		}
	}
	if gain < excess {
		return false
	}
	for _, e := range victims {
		if !f.drop(e, "there is no room for it and a newer one") {
			return false
		}
	}
	return true
}

// dropWaiting drops pending spools that take missing bytes together, or all.
func (f room) dropWaiting(missing int64, reason string) error {
	all, err := f.entries()
	if err != nil {
		return err
	}
	for _, e := range leaving(all) {
		if missing <= 0 {
			break
		}
		// The file system may show only later what it got back.
		if info, err := os.Lstat(e.path); err == nil && f.drop(e, reason) {
			missing -= disk.SpaceOf(info)
		}
	}
	return nil
}

// leaving returns pending spools in the order in which they give way: the oldest first,
// then those of another version of backupd, which cannot be read, and at last the newest
// of each cluster.
func leaving(all []entry) []entry {
	newest := newestOf(all)
	var old, unknown, last []entry
	for _, e := range all {
		switch unread := (*unknownFormatError)(nil); {
		case errors.As(e.err, &unread) || errors.Is(e.err, backup.ErrCorrupt):
			unknown = append(unknown, e)
		case e.err != nil: // it is not ours to remove
		case newest[e.path]:
			last = append(last, e)
		default:
			old = append(old, e)
		}
	}
	return slices.Concat(old, unknown, last)
}

// wayEvery is the time between two looks of [KeepRoom].
const wayEvery = 2 * time.Second

// KeepRoom lets what waits in the folder give way to the reserve, until ctx is done. A
// spool in use looks after itself. The folder may change meanwhile.
func KeepRoom(ctx context.Context, folder func() Folder) {
	tick := time.NewTicker(wayEvery)
	defer tick.Stop()
	failing := false
	for ctx.Err() == nil {
		f := folder()
		err := f.MakeWay()
		if err != nil && !failing { // once, and again after it has worked
			f.log().Error("cannot keep the reserve of the spool's file system free", "err", err)
		}
		failing = err != nil
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}
