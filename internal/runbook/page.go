package runbook

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/kballard/go-shellquote"
)

// width is that of paragraphs, in characters.
const width = 100

// page is Markdown that is being written.
type page struct{ strings.Builder }

func (p *page) heading(level int, format string, args ...any) {
	fmt.Fprintf(p, "%s %s\n\n", strings.Repeat("#", level), fmt.Sprintf(format, args...))
}

// text is a paragraph.
func (p *page) text(format string, args ...any) {
	p.WriteString(wrap(fmt.Sprintf(format, args...), "") + "\n\n")
}

// list has a line or more for each of some facts.
func (p *page) list(items ...string) {
	for _, item := range items {
		p.WriteString("- " + wrap(plain(item), "  ") + "\n")
	}
	p.WriteString("\n")
}

// commands are for a shell, in this order.
func (p *page) commands(lines ...string) {
	p.WriteString("```sh\n" + strings.Join(lines, "\n") + "\n```\n\n")
}

// wrap breaks a paragraph at blanks.
func wrap(text, indent string) string {
	var out strings.Builder
	column := len(indent)
	for i, word := range strings.Fields(text) {
		n := len([]rune(word))
		switch {
		case i == 0:
		case column+1+n > width:
			out.WriteString("\n" + indent)
			column = len(indent)
		default:
			out.WriteString(" ")
			column++
		}
		out.WriteString(word)
		column += n
	}
	return out.String()
}

// plain is text without what would be a command to a terminal.
func plain(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '?'
		}
		return r
	}, text)
}

// q quotes words for bash, each in one line.
func q(words ...string) string {
	var out []string
	for _, w := range words {
		if plain(w) == w {
			out = append(out, shellquote.Join(w))
			continue
		}
		var b strings.Builder
		for i := range len(w) {
			if c := w[i]; c < ' ' || c >= 0x7f || c == '\'' || c == '\\' {
				fmt.Fprintf(&b, `\%03o`, c)
			} else {
				b.WriteByte(c)
			}
		}
		out = append(out, "$'"+b.String()+"'")
	}
	return strings.Join(out, " ")
}

// ask is a word that the operator has to set: the shell refuses the command before.
func ask(name, what string) string { return fmt.Sprintf(`"${%s:?%s}"`, name, what) }

// orAsk is a word for a shell, or one that the operator has to set.
func orAsk(text, name, what string) string {
	if text == "" {
		return ask(name, what)
	}
	return q(text)
}
