package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"time"

	"github.com/dustin/go-humanize"
)

// listPrinter prints the rows of a listing as they come.
type listPrinter interface {
	row(r listed) error
	// flush prints the rows that are held back; end also closes the listing.
	flush() error
	end() error
}

func (a *app) newListPrinter(long bool) listPrinter {
	if a.global.writeOut == "json" {
		return &jsonList{w: bufio.NewWriter(a.stdout)}
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
	t := newColumns(c.a.stdout)
	for _, r := range cells {
		t.row(r...)
	}
	return t.flush()
}

func (c *columnList) end() error { return c.flush() }

// jsonList prints one document, row by row as they come.
type jsonList struct {
	w    *bufio.Writer // keeps its first error, which flush returns
	rows int
}

func (j *jsonList) row(r listed) error {
	raw, err := json.Marshal(r.Row)
	if err != nil {
		return fmt.Errorf("encode output: %w", err)
	}
	j.begin()
	if j.rows++; j.rows > 1 {
		fmt.Fprint(j.w, ",")
	}
	_, err = j.w.Write(raw)
	return err
}

func (j *jsonList) begin() {
	if j.rows == 0 {
		fmt.Fprintf(j.w, `{"kind":%q,"snapshots":[`, kindSnapshotList)
	}
}

func (j *jsonList) flush() error { return j.w.Flush() }

func (j *jsonList) end() error {
	j.begin()
	fmt.Fprintln(j.w, "]}")
	return j.flush()
}
