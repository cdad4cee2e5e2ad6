package container

import "github.com/etcd-backupd/backupd/internal/members"

// Options are those of all readers.
type Options = members.ReadOptions

// Recognize reports whether a file is a compose file or a Dockerfile.
func Recognize(_ string, raw []byte) bool { return IsCompose(raw) || IsDockerfile(raw) }

// Read returns the starts of etcd in a compose file or a Dockerfile.
func Read(file string, raw []byte, o Options) ([]members.Start, error) {
	if IsCompose(raw) {
		return Compose(file, raw, o)
	}
	if !IsDockerfile(raw) {
		return nil, members.Position{File: file}.Errorf("it is neither a compose file nor a Dockerfile")
	}
	image, err := Dockerfile(file, raw)
	if err != nil {
		return nil, err
	}
	start, err := image.start(o)
	if start == nil || err != nil {
		return nil, err
	}
	return []members.Start{*start}, nil
}
