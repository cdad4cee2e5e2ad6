package script

import (
	"errors"
	"io/fs"
	"path"
	"strings"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/members"
)

// include reads the sections of the files that are named: paths with * and ?, relative to the
// folder of this file.
func (p program) include() (out []program, err error) {
	files, err := p.value("files")
	if err != nil {
		return nil, err
	}
	for pattern := range strings.FieldsSeq(files.Text) {
		if !path.IsAbs(pattern) {
			pattern = path.Join(path.Dir(p.file), pattern)
		}
		dir, base := path.Split(pattern)
		if !path.IsAbs(pattern) || strings.ContainsAny(dir, "*?[") || p.o.ReadDir == nil || p.o.ReadFile == nil {
			return nil, backup.WithHint(files.At.Errorf("which files %s includes is not known here", pattern),
				"give the file with the program of etcd")
		}
		entries, err := p.o.ReadDir(path.Clean(dir))
		if errors.Is(err, fs.ErrNotExist) {
			continue // supervisord looks only for what is there
		}
		if err != nil {
			return nil, files.At.Errorf("include %s: %v", pattern, err)
		}
		for _, e := range entries {
			if ok, err := path.Match(base, e.Name()); err != nil || !ok || strings.HasPrefix(e.Name(), ".") {
				continue
			}
			name := path.Join(dir, e.Name())
			raw, err := p.o.ReadFile(name)
			if err != nil {
				return nil, files.At.Errorf("include %s: %v", name, err)
			}
			list, err := sections(members.Word{Text: string(raw), At: members.Position{File: name, Line: 1}})
			if err != nil {
				return nil, err
			}
			for _, s := range list {
				out = append(out, program{section: s, file: name, o: p.o})
			}
		}
	}
	return out, nil
}
