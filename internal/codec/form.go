package codec

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// Form is how a file is packed that was taken for a database.
type Form struct {
	Name   string // what the file is, after "is"
	Unpack string // the command that writes to standard output what is inside; may be empty
}

// forms are known by their first bytes. %s is the file, quoted for a shell.
var forms = []struct {
	at    int
	magic string
	Form
}{
	{0, "\x1f\x8b", Form{"compressed by gzip", "gzip -dc %s"}},
	{0, "\x28\xb5\x2f\xfd", Form{zstdForm, "zstd -dc %s"}},
	{0, "\xfd7zXZ\x00", Form{"compressed by xz", "xz -dc %s"}},
	{0, "BZh", Form{"compressed by bzip2", "bzip2 -dc %s"}},
	{0, "\x04\x22\x4d\x18", Form{"compressed by lz4", "lz4 -dc %s"}},
	{0, "PK\x03\x04", Form{"a zip archive", "unzip -p %s"}},
	{257, "ustar", Form{"a tar archive", "tar -xOf %s"}},
	{0, "age-encryption.org/", Form{ageForm, "age -d -i IDENTITY %s"}},
	{0, "-----BEGIN AGE ENCRYPTED FILE-----", Form{ageForm, "age -d -i IDENTITY %s"}},
	{0, "-----BEGIN PGP MESSAGE-----", Form{"encrypted by PGP", "gpg -d %s"}},
	{0, "Salted__", Form{"encrypted by openssl enc", ""}},
}

// The forms of what is stored in a repository.
const (
	zstdForm = "compressed by zstd"
	ageForm  = "encrypted by age"
)

// Stored reports whether f is a form that a repository stores snapshots in.
func (f *Form) Stored() bool { return f.Name == zstdForm || f.Name == ageForm }

// headBytes is as much of a file as tells its form.
const headBytes = 512

// FormOf returns the form of a file by its first bytes, or nil if it is none that people
// pack a snapshot in. quoted is the name of the file as a shell takes it.
func FormOf(path, quoted string) (*Form, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read from
	head := make([]byte, headBytes)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	head = head[:n]
	if n == 0 {
		return &Form{Name: "empty"}, nil
	}
	for _, known := range forms {
		if len(head) > known.at && bytes.HasPrefix(head[known.at:], []byte(known.magic)) {
			form := known.Form
			form.Unpack = strings.ReplaceAll(form.Unpack, "%s", quoted)
			if form.Name == ageForm && strings.HasSuffix(path, ".zst.age") {
				form.Unpack += " | zstd -dc"
			}
			return &form, nil
		}
	}
	if isText(head) {
		return &Form{Name: "a text"}, nil
	}
	return nil, nil
}

// isText reports whether only printable bytes are in a file's head, as in the answer of a
// server that has not what it was asked for.
func isText(head []byte) bool {
	return !bytes.ContainsFunc(head, func(r rune) bool {
		return r < ' ' && r != '\n' && r != '\r' && r != '\t' || r == 0x7f || r == '\uFFFD'
	})
}
