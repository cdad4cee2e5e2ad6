package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/server"
)

// terminal is one with so many columns. What is written to it can be read from seen.
func terminal(t *testing.T, columns int) (tty, seen *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	fd := int(master.Fd())
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	must(err)
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	must(err)
	must(unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: uint16(columns)}))
	return tty, master
}

// onTerminal returns what print shows there.
func onTerminal(t *testing.T, columns int, print func(w io.Writer) error) string {
	t.Helper()
	tty, seen := terminal(t, columns)
	got := make(chan string)
	go func() {
		var all strings.Builder
		_, _ = io.Copy(&all, seen) // ends with EIO when nobody holds the terminal
		got <- strings.ReplaceAll(all.String(), "\r\n", "\n")
	}()
	if err := print(&output{w: tty}); err != nil {
		t.Fatal(err)
	}
	if err := tty.Close(); err != nil {
		t.Fatal(err)
	}
	return <-got
}

func wideRows() (header []string, rows [][]string) {
	return []string{"CLUSTER", "ID", "AGE", "REVISION", "STORED", "ENCODING", "PINNED", "TIMELINE", "STATE", "REASONS"},
		[][]string{
			{"prod", "20261120T101500Z-r123456-k7q2xd", "3h12m", "123456", "12 MiB", "zstd+age", "no", "t1-aaaaaa",
				"verified", "the newest of its day; one of the 3 newest verified snapshots of its timeline"},
			{"a-cluster-with-a-name-that-is-long", "20261120T101500Z-r1-k7q2xd", "3h12m", "1", "", "", "yes", "t1-aaaaaa",
				"damaged", "données manquantes: " + strings.Repeat("x", 90)},
		}
}

// letters returns the visible text without spaces, borders and line ends.
func letters(text string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(" \n│┌┐└┘├┤┬┴┼─", r) {
			return -1
		}
		return r
	}, text)
}

// TestTables_FitTheTerminal: no line is longer than the terminal, nothing is cut, and each
// row begins at the left.
func TestTables_FitTheTerminal(t *testing.T) {
	header, rows := wideRows()
	count := func(text string) map[rune]int {
		out := map[rune]int{}
		for _, r := range letters(text) {
			out[r]++
		}
		return out
	}
	whole := header[0]
	for _, row := range append([][]string{header[1:]}, rows...) {
		whole += strings.Join(row, "")
	}
	for _, form := range []string{"simple", "table"} {
		for _, columns := range []int{250, 160, 120, 80, 60, 40, 20, 3} {
			got := onTerminal(t, columns, func(w io.Writer) error {
				a := &app{stdout: w, global: globalFlags{writeOut: form}}
				return a.printRows(header, rows)
			})
			for line := range strings.Lines(got) {
				if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > columns {
					t.Errorf("%s: %d columns on a terminal of %d:\n%s", form, n, columns, line)
				}
			}
			if fmt.Sprint(count(got)) != fmt.Sprint(count(whole)) {
				t.Errorf("%s: something is missing on a terminal of %d columns:\n%s", form, columns, got)
			}
			if columns >= 80 && form == "simple" && !strings.Contains(got, "20261120T101500Z-r123456-k7q2xd") {
				t.Errorf("the id is in pieces on a terminal of %d columns:\n%s", columns, got)
			}
		}
	}
}

// TestTables_WholeElsewhere: a file or a pipe gets every row as one line.
func TestTables_WholeElsewhere(t *testing.T) {
	header, rows := wideRows()
	for _, form := range []string{"simple", "table"} {
		var out strings.Builder
		a := &app{stdout: &out, global: globalFlags{writeOut: form}}
		if err := a.printRows(header, rows); err != nil {
			t.Fatal(err)
		}
		for _, row := range rows {
			if !strings.Contains(out.String(), row[len(row)-1]) {
				t.Errorf("%s: a cell is not whole:\n%s", form, out.String())
			}
		}
		for line := range strings.Lines(out.String()) {
			if form == "table" && strings.HasPrefix(line, "│") && strings.HasPrefix(line, "│  ") {
				t.Errorf("not at the left: %s", line)
			}
		}
		if want := map[string]int{"simple": 3, "table": 6}[form]; strings.Count(out.String(), "\n") != want {
			t.Errorf("%s: want %d lines:\n%s", form, want, out.String())
		}
	}
}

// TestGlance_FitsTheTerminal: with its colours, too.
func TestGlance_FitsTheTerminal(t *testing.T) {
	t.Setenv("TERM", "xterm")
	t.Setenv("NO_COLOR", "")
	c := well(strings.Repeat("long-name", 6))
	got := onTerminal(t, 60, func(w io.Writer) error {
		a := &app{stdout: w, global: globalFlags{writeOut: "simple"}}
		return printClusters(a, status{Clusters: []server.Cluster{c}}, time.Now())
	})
	if !strings.Contains(got, "\x1b[32mok\x1b[0m") {
		t.Errorf("no colour:\n%s", got)
	}
	for line := range strings.Lines(strings.NewReplacer("\x1b[32m", "", "\x1b[0m", "").Replace(got)) {
		if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > 60 {
			t.Errorf("%d columns on a terminal of 60:\n%s", n, line)
		}
	}
}

// TestFields are etcdctl's: a name and a value a line, strings with quotes, numbers without;
// a list is its elements, and a listing ends each object with an empty line.
func TestFields(t *testing.T) {
	var out strings.Builder
	err := printFields(&out, struct {
		Cluster   string          `json:"cluster"`
		Revision  int64           `json:"revision"`
		Pinned    bool            `json:"pinned"`
		Plain     backup.Blob     `json:"plain"`
		Empty     []string        `json:"empty"`
		Snapshots []backup.Member `json:"snapshots"`
	}{
		Cluster: `a "b"`, Revision: 1<<60 + 1, Pinned: true, Plain: backup.Blob{Bytes: 7},
		Snapshots: []backup.Member{
			{ID: 0xabc, Name: "m1", PeerURLs: []string{"http://a:1", "http://b:1"}}, {ID: 1, PeerURLs: []string{}},
		},
	})
	want := `"Cluster" : "a \"b\""
"Revision" : 1152921504606846977
"Pinned" : true
"PlainBytes" : 7
"PlainSHA256" : "` + strings.Repeat("0", 64) + `"
"ID" : "abc"
"Name" : "m1"
"PeerURL" : "http://a:1"
"PeerURL" : "http://b:1"

"ID" : "1"
"Name" : ""

`
	if err != nil || out.String() != want {
		t.Errorf("got, %v\n%swant\n%s", err, out.String(), want)
	}
}

// TestList_WholeOrNothing: a listing that fails half-way prints no document.
func TestList_WholeOrNothing(t *testing.T) {
	for form, want := range map[string]string{"json": `{"kind":"backupd/snapshot-list/v1","snapshots":[{`,
		"fields": `"Cluster" : "prod"`} {
		var out strings.Builder
		a := &app{stdout: &out, global: globalFlags{writeOut: form}}
		list := a.newListPrinter(false)
		err := errors.Join(list.row(listed{Row: backup.Row{Cluster: "prod"}}), list.flush())
		if err != nil || out.Len() > 0 {
			t.Errorf("%s: printed %q, %v before the end", form, out.String(), err)
		}
		if err := list.end(); err != nil || !strings.HasPrefix(out.String(), want) {
			t.Errorf("%s: printed %q, %v", form, out.String(), err)
		}
	}
}
