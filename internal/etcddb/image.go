package etcddb

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"syscall"
	"unsafe"

	"golang.org/x/sync/errgroup"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// withImage maps the database in file and calls read with it. If a page cannot be
// read, because the disk fails or the file is cut meanwhile, it returns an error
// instead of crashing. Other goroutines may use the image in its guard, until read returns.
func withImage(file *os.File, read func(*image) error) (err error) {
	frame, err := readFrame(file)
	if err != nil {
		return err
	}
	data, err := syscall.Mmap(int(file.Fd()), 0, int(frame.DatabaseBytes), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map database: %w", err)
	}
	defer func() { err = errors.Join(err, syscall.Munmap(data)) }()
	guard := func(read func() error) (err error) {
		defer debug.SetPanicOnFault(debug.SetPanicOnFault(true)) // is of one goroutine
		defer func() {
			if fault := recover(); fault != nil {
				err = explainFault(file, frame, data, fault)
			}
		}()
		return read()
	}
	im := &image{frame.meta, &mapped{data, uint64(frame.meta.PageBytes)}, guard}
	return guard(func() error { return read(im) })
}

// both calls first and second, side by side where the image bears it. The error is that of
// first, if it has one.
func (im *image) both(first, second func() error) error {
	if im.guard == nil {
		if err := first(); err != nil {
			return err
		}
		return second()
	}
	var beside errgroup.Group
	defer beside.Wait() // also if second panics: the image must stay mapped
	beside.Go(func() error { return im.guard(first) })
	err := second()
	if ferr := beside.Wait(); ferr != nil {
		return ferr
	}
	return err
}

// explainFault reads the page through the file to find out why the mapped page
// could not be read.
func explainFault(file *os.File, frame *Frame, data []byte, fault any) error {
	var addressed interface{ Addr() uintptr }
	rerr, ok := fault.(runtime.Error)
	if !ok || !errors.As(rerr, &addressed) {
		panic(fault) // a mistake in this package, not damage
	}
	off := int64(addressed.Addr() - uintptr(unsafe.Pointer(unsafe.SliceData(data))))
	if off < 0 || off >= frame.DatabaseBytes {
		panic(fault)
	}
	id := off / int64(frame.PageBytes)
	if _, err := file.ReadAt(make([]byte, 1), off); err != nil {
		if info, serr := file.Stat(); serr == nil && info.Size() <= off {
			return backup.Corruptf("page %d: the file was cut to %d bytes while it was read", id, info.Size())
		}
		return fmt.Errorf("page %d: %w", id, err)
	}
	return backup.Corruptf("page %d: reading it failed once: the disk or the memory is bad", id)
}
