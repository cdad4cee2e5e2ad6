package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// printFields prints a document as etcdctl's fields: `"Name" : value`, one a line. The
// names are those of the JSON, as Go writes them. A list is one line for each value, and
// what is in an object has its name before its own, except in the lists of the document:
// there an empty line ends each object, as etcdctl ends each member.
func printFields(w io.Writer, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode output: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber() // a revision has more digits than a float
	f := &fieldsPrinter{d: d, w: w}
	if err := f.document(); err != nil {
		return fmt.Errorf("print fields: %w", err)
	}
	return nil
}

// fieldsPrinter reads JSON in the order in which it was written: a map has none.
type fieldsPrinter struct {
	d *json.Decoder
	w io.Writer
}

func (f *fieldsPrinter) document() error {
	if _, err := f.d.Token(); err != nil { // the brace
		return err
	}
	return f.object("", true)
}

// object prints the fields of an object whose brace is read.
func (f *fieldsPrinter) object(prefix string, top bool) error {
	for f.d.More() {
		key, err := f.d.Token()
		if err != nil {
			return err
		}
		name := prefix + exported(key.(string))
		t, err := f.d.Token()
		if err != nil {
			return err
		}
		if t == json.Delim('[') {
			err = f.list(name, top)
		} else {
			err = f.value(name, t)
		}
		if err != nil {
			return err
		}
	}
	_, err := f.d.Token()
	return err
}

// list prints the elements of a list whose bracket is read.
func (f *fieldsPrinter) list(name string, top bool) error {
	one := singular(name)
	for f.d.More() {
		t, err := f.d.Token()
		if err != nil {
			return err
		}
		if t != json.Delim('{') || !top {
			if err := f.value(one, t); err != nil {
				return err
			}
			continue
		}
		if err := f.object("", false); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(f.w); err != nil {
			return err
		}
	}
	_, err := f.d.Token()
	return err
}

// value prints a value that begins with the token t.
func (f *fieldsPrinter) value(name string, t json.Token) error {
	var err error
	switch t := t.(type) {
	case json.Delim:
		if t == '{' {
			return f.object(name, false)
		}
		return f.list(name, false)
	case string:
		_, err = fmt.Fprintf(f.w, "\"%s\" : %q\n", name, t)
	case nil:
		// There is no value.
	default:
		_, err = fmt.Fprintf(f.w, "\"%s\" : %v\n", name, t)
	}
	return err
}

// exported spells a name as Go exports it: clusterID becomes ClusterID, and id ID.
func exported(name string) string {
	switch name {
	case "id", "os", "url", "sha256":
		return strings.ToUpper(name)
	}
	first, n := utf8.DecodeRuneInString(name)
	return string(unicode.ToUpper(first)) + name[n:]
}

// singular is the name of one element of a list: PeerURL of PeerURLs.
func singular(name string) string {
	for _, s := range []struct{ end, one string }{{"ies", "y"}, {"shes", "sh"}, {"s", ""}} {
		if rest, ok := strings.CutSuffix(name, s.end); ok {
			return rest + s.one
		}
	}
	return name
}
