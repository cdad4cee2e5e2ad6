package main

import (
	"errors"
	"path/filepath"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/daemon"
	"github.com/etcd-backupd/backupd/internal/textfile"
)

// metricsFile is the file of --metrics-file. The zero value is none.
type metricsFile struct{ file *textfile.File }

// openMetricsFile checks the file, before etcd or a store is asked for anything. If the file
// cannot be written, the backup is taken all the same: the log says so now, and the exit code
// at the end.
func openMetricsFile(a *app, path string) (m metricsFile, err error) {
	if path == "" {
		return m, nil
	}
	if m.file, err = textfile.Open(path); err != nil && !errors.As(err, new(*backup.RefusedError)) {
		err = errors.New(err.Error()) // no snapshot is missing, and no configuration
	}
	if err != nil {
		return m, err
	}
	if err := m.file.Probe(); err != nil {
		a.log.slog.Error("the backup goes on, but its metrics cannot be written", "err", err)
	}
	if filepath.Ext(path) != ".prom" {
		a.log.slog.Warn("the node exporter reads no file whose name does not end in .prom", "file", path)
	}
	return m, nil
}

// write writes the metrics of a slot.
func (m metricsFile) write(guards *daemon.Guards, done []daemon.Outcome) error {
	if m.file == nil {
		return nil
	}
	slot, err := guards.Slot(done)
	if err == nil {
		err = m.file.Write(slot, time.Now())
	}
	return err
}

// orUnwritten is how the slot ended, or that its metrics were not written: that must not hide
// what became of the backup, and has exit code 1 whatever the reason.
func orUnwritten(err, unwritten error) error {
	if unwritten == nil {
		return err
	}
	told := errors.New("the metrics were not written: " + unwritten.Error())
	if err != nil {
		return errors.Join(err, told)
	}
	return backup.WithHint(told,
		"the backup was done; the file tells of an earlier run: see that this user can write it, and its folder")
}
