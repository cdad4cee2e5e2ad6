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

func quietLogs() logs { return logs{slog: slog.New(slog.DiscardHandler), zap: zap.NewNop()} }

// Kinds of JSON documents that commands print.
const (
	kindInit           = "backupd/init/v1"
	kindSnapshot       = "backupd/snapshot/v1"
	kindCompanions     = "backupd/companions/v1"
	kindSnapshotList   = "backupd/snapshot-list/v1"
	kindBackups        = "backupd/backups/v1"
	kindPrune          = "backupd/prune/v1"
	kindVerification   = "backupd/verification/v1"
	kindPlan           = "backupd/plan/v1"
	kindRestore        = "backupd/restore/v1"
	kindRestorePlan    = "backupd/restore-plan/v1"
	kindRestoreAborted = "backupd/restore-aborted/v1"
	kindUnneeded       = "backupd/restore-unneeded/v1" // why nothing was restored
	kindUndo           = "backupd/restore-undone/v1"
	kindUndoPlan       = "backupd/restore-undo-plan/v1"
	kindRescue         = "backupd/rescue/v1"
	kindVersion        = "backupd/version/v1"
	kindTimelines      = "backupd/timelines/v1"
	kindConfigCheck    = "backupd/config-check/v1"
	kindImport         = "backupd/import/v1"
	kindPin            = "backupd/pin/v1"
	kindPause          = "backupd/paused/v1"
	kindRemoval        = "backupd/removal/v1"
	kindAccepted       = "backupd/timeline-accepted/v1"
	kindMemberReplaced = "backupd/member-replaced/v1"
	kindError          = "backupd/error/v1"
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

// forMachines reports whether another program will read the answer.
func (a *app) forMachines() bool { return a.global.writeOut == "json" || a.global.writeOut == "fields" }

// document prints v in the form for machines that was asked for, if one was.
func (a *app) document(kind string, v any) (printed bool, err error) {
	switch a.global.writeOut {
	case "json":
		return true, printJSON(a.stdout, kind, v)
	case "fields":
		return true, printFields(a.stdout, v)
	}
	return false, nil
}

// printRows prints a listing: in borders with --write-out=table, else in plain columns. On
// a terminal it is not wider than that.
func (a *app) printRows(header []string, rows [][]string) error {
	all, width := append([][]string{header}, rows...), terminalWidth(a.stdout)
	if a.global.writeOut == "table" {
		if width == 0 {
			return printTable(a.stdout, header, rows, tw.AlignLeft)
		}
		if cells, ok := boxed(all, width); ok {
			return printTable(a.stdout, cells[0], cells[1:], tw.AlignLeft)
		}
	}
	return printPlain(a.stdout, fit(all, width), all)
}

func printPlain(w io.Writer, l layout, rows [][]string) error {
	for _, row := range rows {
		for _, line := range l.lines(row, nil) {
			if _, err := fmt.Fprintln(w, line); err != nil {
				return err
			}
		}
	}
	return nil
}

// printTable prints a table as etcd's tools draw it.
func printTable(w io.Writer, header []string, rows [][]string, align tw.Align) error {
	conf := tablewriter.NewConfigBuilder().WithRowAlignment(align)
	if align == tw.AlignLeft { // etcd's headers stand in the middle
		conf = conf.WithHeaderAlignment(align)
	}
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
