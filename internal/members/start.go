package members

import (
	"fmt"
	"io/fs"
	"path"
	"regexp"

	"github.com/etcd-backupd/backupd/internal/secret"
)

const (
	// MaxFileBytes is the size of the largest file that is read.
	MaxFileBytes = 1 << 20
	// MaxFileLines is the largest number of lines of such a file.
	MaxFileLines = 10_000
	// MaxValueBytes is the length of the longest text that replaces variables.
	MaxValueBytes = 64 << 10
)

// Position is a line of a file.
type Position struct {
	File string // as the caller named it, or as it was found from there
	Line int    // 1 is the first; 0 means the whole file
}

// String returns FILE:LINE.
func (p Position) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d", p.File, p.Line)
}

// FileError is a problem with one line of the operator's files: it is not understood, it
// contradicts another, or it cannot be followed to this host.
type FileError struct {
	At      Position
	Problem string
}

// Error returns FILE:LINE: problem.
func (e *FileError) Error() string { return e.At.String() + ": " + e.Problem }

// Errorf returns a [*FileError].
func (p Position) Errorf(format string, args ...any) error {
	return &FileError{p, fmt.Sprintf(format, args...)}
}

// Word is a piece of text, and where it is written.
type Word struct {
	Text string
	At   Position
}

// Variable is an environment variable.
type Variable struct {
	Name  string
	Value Word
}

// Note is a fact of the files that the operator should know: a line that has no effect,
// or one that a newer etcd would refuse.
type Note struct {
	At   Position
	Text string
}

// String returns FILE:LINE: text, as it may be shown.
func (n Note) String() string { return n.At.String() + ": " + secret.ShowText(n.Text) }

// program is the name of etcd's program, alone or with its version.
var program = regexp.MustCompile(`^etcd([-_.]?v?[0-9][0-9A-Za-z._+-]*)?$`)

// IsProgram reports whether a program, by its path or its name, is an etcd server: etcd, or
// one that has its version in its name, such as etcd-v3.5.
func IsProgram(name string) bool { return program.MatchString(path.Base(name)) }

// Means is how a server is started.
type Means string

// Means that are known.
const (
	ByHand      Means = "by hand"     // the files say settings, and not how a server gets them
	Systemd     Means = "systemd"     // a unit
	Script      Means = "script"      // a shell script
	Supervisord Means = "supervisord" // a program of supervisord
	Container   Means = "container"   // a container of docker, podman or compose
	StaticPod   Means = "static pod"  // a manifest in the folder of a kubelet, such as kubeadm's
	StatefulSet Means = "StatefulSet" // one pod of it
)

// Mount is a folder or a file of the host in a container.
type Mount struct {
	// Inside is the path in the container, Host the one on the host. Host is empty for
	// a volume that some other program keeps: Volume is its name then.
	Inside, Host Word
	Volume       string
	// Claim is true if the volume is a claim of Kubernetes.
	Claim bool
	// Below is the folder of the volume that is mounted; empty for all of it.
	Below    string
	ReadOnly bool
}

// Need is something that has to be at a path of the host before etcd runs, because the start makes
// it itself, or waits for it: a mount, or a link.
type Need struct {
	// Path is empty if it cannot be known.
	Path Word
	// What says it to people.
	What string
	// Link is where a link leads; empty for a mount.
	Link string
	// Above is true if mounts are wanted at the path or anywhere above it, where there are any.
	Above bool
}

// Start is one start of an etcd server as files describe it: all that systemd, a shell, a
// container runtime or a kubelet would give to the process. Expansion is done: every text
// is the one that the process would see.
type Start struct {
	Means Means
	// Unit is the name by which the means knows it: a unit, a program, a container, a pod.
	Unit string
	// Service is the name in a compose file; empty if the container has a name of its own.
	Service string
	// Of is where the start is written: the line of ExecStart, of the command, of the container.
	Of Position
	// Args are the arguments of etcd, without the program.
	Args []Word
	// Env is the environment, as far as files give it. Each name is there once.
	Env []Variable
	// Dir is the working directory. Its text is empty if the files do not say it.
	Dir Word
	// User and Group are names or numbers, and empty if the files do not say them.
	User, Group Word
	// UserOfImage is true if User is empty because an image says it, by a name of its own, or
	// one that is not known.
	UserOfImage bool
	// Contained is true if paths are those of a container: Mounts says where they are on
	// the host.
	Contained bool
	Mounts    []Mount
	// Hostname is the name of the host or the container, for a setting that was made of it.
	Hostname Word
	// Replicas is the number of members that a set of pods has, and 0 otherwise.
	Replicas int
	// Above is true for a pod that a set of so many replicas has not: it was scaled up
	// once, or will be.
	Above bool
	// Namespace is that of a pod, Node the one that it is bound to.
	Namespace string
	Node      Word
	// Outlives is true if etcd runs on after the means has stopped what it has started.
	Outlives bool
	// Needs are what the start makes first, or waits for.
	Needs []Need
	// Absent are files that are not there, and that the start may make: they would set variables.
	Absent []Word
	// Copied are the folders for which a file counts that may be of another host, that with its / first.
	Copied []string
	// Notes are facts on lines that were read.
	Notes []Note
}

// ReadOptions are what the reading of a file depends on besides the file.
type ReadOptions struct {
	// Name is the member that is asked for; empty means that nobody has said it.
	Name string
	// Hostname is the name of the host that the file is of; empty means that it is not known.
	Hostname string
	// Copies is true on a host that need not be the one that the file is of: what a copy names by
	// an absolute path is not taken from this host then.
	Copies bool
	// ReadFile and ReadDir read what a file refers to, by absolute path.
	ReadFile func(path string) ([]byte, error)
	ReadDir  func(path string) ([]fs.DirEntry, error)
	// Follow returns the file that an absolute path leads to through all links. A nil Follow
	// knows of no links.
	Follow func(path string) (string, error)
	// Dockerfile is that of the image whose containers are started, where the file that
	// starts them does not say it. Its text is empty if nobody gave one.
	Dockerfile Word
	// Container reads a command that may run a container, such as docker run, in dir with env.
	// It returns nil for another command. A nil Container reads none.
	Container func(words []Word, env []Variable, dir string, o ReadOptions) (*Start, error)
}
