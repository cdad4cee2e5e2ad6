package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/olekukonko/tablewriter"
	"github.com/olekukonko/tablewriter/tw"
	"go.uber.org/zap"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// completionTimeout bounds what a shell waits for.
const completionTimeout = 2 * time.Second

func quietLogs() logs { return logs{slog: slog.New(slog.DiscardHandler), zap: zap.NewNop()} }

// Kinds of JSON documents that commands print.
const (
	kindInit         = "backupd/init/v1"
	kindSnapshot     = "backupd/snapshot/v1"
	kindSnapshotList = "backupd/snapshot-list/v1"
	kindBackups      = "backupd/backups/v1"
	kindPrune        = "backupd/prune/v1"
	kindVerification = "backupd/verification/v1"
	kindRestore      = "backupd/restore/v1"
	kindVersion      = "backupd/version/v1"
	kindTimelines    = "backupd/timelines/v1"
	kindConfigCheck  = "backupd/config-check/v1"
)

// printJSON prints one document: v's fields and the kind they are of.
func printJSON(w io.Writer, kind string, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode output: %w", err)
	}
	head, err := json.Marshal(kind)
	if err != nil {
		return fmt.Errorf("encode output: %w", err)
	}
	sep := ","
	if string(raw) == "{}" {
		sep = ""
	}
	_, err = fmt.Fprintf(w, "{\"kind\":%s%s%s\n", head, sep, strings.TrimPrefix(string(raw), "{"))
	return err
}

// columns prints aligned rows.
type columns struct{ w *tabwriter.Writer }

func newColumns(w io.Writer) *columns {
	return &columns{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
}

func (c *columns) row(cells ...string) { fmt.Fprintln(c.w, strings.Join(cells, "\t")) }
func (c *columns) flush() error        { return c.w.Flush() }

// printRows prints a listing: as etcd's tables with --write-out=table, else in
// plain columns.
func (a *app) printRows(header []string, rows [][]string) error {
	if a.global.writeOut == "table" {
		return printTable(a.stdout, header, rows)
	}
	t := newColumns(a.stdout)
	t.row(header...)
	for _, r := range rows {
		t.row(r...)
	}
	return t.flush()
}

// printTable prints a table as etcd's tools draw it.
func printTable(w io.Writer, header []string, rows [][]string) error {
	conf := tablewriter.NewConfigBuilder().WithRowAlignment(tw.AlignRight)
	t := tablewriter.NewTable(w, tablewriter.WithConfig(conf.Build()))
	t.Header(header)
	for _, r := range rows {
		if err := t.Append(r); err != nil {
			return fmt.Errorf("print table: %w", err)
		}
	}
	return t.Render()
}

// ageOf spells how old a snapshot is, or how far in the future its id is.
func ageOf(id backup.SnapshotID, now time.Time) string {
	if id.Future(now) {
		return "in " + age(now, id.Time())
	}
	return age(id.Time(), now)
}

// age spells how long ago t was, in one or two units.
func age(t, now time.Time) string {
	d := max(0, now.Sub(t)) // clocks differ a little
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}
