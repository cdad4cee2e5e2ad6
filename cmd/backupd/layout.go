package main

import (
	"io"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"
)

// columnGap stands between two columns.
const columnGap = 2

// narrowest is what a column of text may shrink to.
const narrowest = 16

// terminalWidth returns how many columns the terminal has that w writes to, or 0 if it is
// no terminal: what is not read by eyes is never wrapped.
func terminalWidth(w io.Writer) int {
	if o, ok := w.(*output); ok {
		w = o.w
	}
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return width
}

// layout says how rows are printed in columns. No cell is cut: text is wrapped, and
// columns for which there is no room go to a line of their own below the others.
type layout struct {
	widths []int
	below  []bool // the column begins a line
}

// fit makes the layout of rows on a terminal of some width, or on none (0).
func fit(rows [][]string, width int) layout {
	l := layout{widths: make([]int, len(rows[0])), below: make([]bool, len(rows[0]))}
	for _, row := range rows {
		for i, cell := range row {
			l.widths[i] = max(l.widths[i], utf8.RuneCountInString(cell))
		}
	}
	if width <= 0 {
		return l
	}
	shrink(l.widths, floor(rows, narrowest), width-columnGap*(len(l.widths)-1))
	used := 0
	for i := range l.widths {
		l.widths[i] = min(l.widths[i], max(1, width-columnGap))
		if i > 0 && used+columnGap+l.widths[i] > width {
			l.below[i], used = true, columnGap+l.widths[i]
		} else if i > 0 {
			used += columnGap + l.widths[i]
		} else {
			used = l.widths[i]
		}
	}
	return l
}

// floor returns how narrow each column may get: no word is broken, and text can be read.
func floor(rows [][]string, least int) []int {
	out := slices.Repeat([]int{least}, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			for word := range strings.FieldsSeq(cell) {
				out[i] = max(out[i], utf8.RuneCountInString(word))
			}
		}
	}
	return out
}

// shrink makes the widest columns narrower, until all fit into the room or are at their
// floor.
func shrink(widths, floor []int, room int) {
	for {
		sum, widest := 0, -1
		for i, n := range widths {
			sum += n
			if n > floor[i] && (widest < 0 || n > widths[widest]) {
				widest = i
			}
		}
		if sum <= room || widest < 0 {
			return
		}
		widths[widest]--
	}
}

// lines returns a row as it is printed. paint colours a padded cell, and may be nil: a
// terminal counts no escape sequence.
func (l layout) lines(row []string, paint func(column int, text string) string) []string {
	var out []string
	for begin := 0; begin < len(row); {
		end := begin + 1
		for end < len(row) && !l.below[end] {
			end++
		}
		indent := ""
		if begin > 0 {
			indent = strings.Repeat(" ", columnGap)
		}
		out = append(out, l.part(row, begin, end, indent, paint)...)
		begin = end
	}
	return out
}

// part returns the lines of the cells from begin to end.
func (l layout) part(
	row []string, begin, end int, indent string, paint func(int, string) string,
) []string {
	cells := make([][]string, end-begin)
	high := 1
	for i := range cells {
		cells[i] = wrap(row[begin+i], l.widths[begin+i])
		high = max(high, len(cells[i]))
	}
	out := make([]string, high)
	for n := range out {
		line := indent
		for i := range cells {
			text := ""
			if n < len(cells[i]) {
				text = cells[i][n]
			}
			padding := strings.Repeat(" ", l.widths[begin+i]-utf8.RuneCountInString(text)+columnGap)
			if paint != nil {
				text = paint(begin+i, text)
			}
			line += text + padding
		}
		out[n] = strings.TrimRight(line, " ")
	}
	return out
}

// wrap breaks text into lines of a width, between words, or within one that is longer.
func wrap(text string, width int) []string {
	if utf8.RuneCountInString(text) <= width && !strings.Contains(text, "\n") {
		return []string{text}
	}
	var out []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) <= width {
			line += " " + word
			continue
		}
		if line != "" {
			out = append(out, line)
		}
		line = word
		for runes := []rune(line); len(runes) > width; runes = []rune(line) {
			out, line = append(out, string(runes[:width])), string(runes[width:])
		}
	}
	return append(out, line)
}

// boxed wraps the cells of a table with borders to a width. It reports false if the borders
// leave no room: then words would be broken into pieces of few letters.
func boxed(rows [][]string, width int) ([][]string, bool) {
	n := len(rows[0])
	room := width - 3*n - 1
	if room < narrowest/2*n {
		return nil, false
	}
	l := fit(rows, 0)
	shrink(l.widths, floor(rows, narrowest), room)
	shrink(l.widths, slices.Repeat([]int{narrowest / 2}, n), room)
	out := make([][]string, len(rows))
	for i, row := range rows {
		for j, cell := range row {
			out[i] = append(out[i], strings.Join(wrap(cell, l.widths[j]), "\n"))
		}
	}
	return out, true
}
