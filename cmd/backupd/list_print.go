package main

import (
	"time"

	"github.com/dustin/go-humanize"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// listPrinter prints the rows of a listing as they come.
type listPrinter interface {
	row(r listed) error
	// flush prints the rows that are held back, if they can stand alone; end also closes
	// the listing.
	flush() error
	end() error
}

func (a *app) newListPrinter(long bool) listPrinter {
	if a.forMachines() {
		return &documentList{a: a, rows: []backup.Row{}}
	}
	header := []string{"CLUSTER", "ID", "AGE", "REVISION", "STORED", "ENCODING", "PINNED", "TIMELINE", "STATE"}
	if long {
		header = []string{"CLUSTER", "ID", "AGE", "REVISION", "SIZE", "STORED", "ENCODING", "PINNED", "TIMELINE",
			"STATE"}
	}
	return &columnList{a: a, header: header, long: long, now: time.Now(), first: true}
}

// columnList aligns and prints some hundreds of rows at once. A table is drawn when
// all rows are there.
type columnList struct {
	a      *app
	header []string
	long   bool
	now    time.Time
	cells  [][]string
	first  bool
}

func (c *columnList) row(r listed) error {
	state := string(r.State)
	if r.Future {
		state += ", from the future"
	}
	if r.Untimely {
		state += ", its time is wrong"
	}
	cells := []string{r.Cluster, string(r.ID), ageOf(r.ID, c.now), r.Revision.String()}
	if c.long {
		size := ""
		if r.PlainBytes > 0 {
			size = humanize.IBytes(uint64(r.PlainBytes))
		}
		cells = append(cells, size)
	}
	pinned := "no"
	if r.Pinned {
		pinned = "yes"
	}
	c.cells = append(c.cells, append(cells, humanize.IBytes(uint64(r.StoredBytes)), r.Encoding, pinned, r.Timeline, state))
	if len(c.cells) < listAtOnce || c.a.global.writeOut == "table" {
		return nil
	}
	return c.flush()
}

func (c *columnList) flush() error {
	if len(c.cells) == 0 && !c.first {
		return nil
	}
	cells := c.cells
	c.cells = nil
	if c.first {
		c.first = false
		return c.a.printRows(c.header, cells)
	}
	return printPlain(c.a.stdout, fit(cells, terminalWidth(c.a.stdout)), cells)
}

func (c *columnList) end() error { return c.flush() }

// documentList prints one document when all rows are there, so that none is cut.
type documentList struct {
	a    *app
	rows []backup.Row
}

type snapshotList struct {
	Snapshots []backup.Row `json:"snapshots"`
}

func (d *documentList) row(r listed) error {
	d.rows = append(d.rows, r.Row)
	return nil
}

func (d *documentList) flush() error { return nil }

func (d *documentList) end() error {
	_, err := d.a.document(kindSnapshotList, snapshotList{d.rows})
	return err
}
