package members

import (
	"slices"

	"github.com/etcd-backupd/backupd/internal/disk"
)

// shared are folders of a host that are never a copy of those of another one, whatever lies there.
var shared = []string{"/", "/etc", "/usr", "/lib", "/run", "/var", "/var/lib", "/opt", "/srv", "/home", "/mnt", "/tmp"}

// InTree reports whether a file is in a folder that may be a copy of a host's.
func InTree(name, root string) bool { return disk.Within(name, root) && !slices.Contains(shared, root) }

// Place says where the directories of a member are on its host, and how it is started there,
// as far as that was said: all but Member may be empty.
type Place struct {
	Member  string `json:"member"`
	DataDir string `json:"dataDir,omitempty"`
	WALDir  string `json:"walDir,omitempty"`
	// Owner is USER:GROUP, by names or numbers, or USER: for the user's own group.
	Owner string `json:"owner,omitempty"`
	Means Means  `json:"means,omitempty"`
	// Unit is the name by which the means knows the member, Service that in a compose file, and
	// Namespace that of a pod.
	Unit      string `json:"unit,omitempty"`
	Service   string `json:"service,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	// File is the one that starts the member.
	File string `json:"file,omitempty"`
	// Stored is the id of the snapshot that holds the files of the host.
	Stored string `json:"filesOf,omitempty"`
	// Volume is nil for directories of the host.
	Volume *Volume `json:"volume,omitempty"`
}

// Volume is where the data of a member is that the host does not show: a claim of a pod, or a
// volume that a container runtime keeps. Paths are those of the container.
type Volume struct {
	Name      string `json:"name"`
	MountPath string `json:"mountPath"`
	// Below is the folder of the volume that is mounted; empty for all of it.
	Below   string `json:"below,omitempty"`
	DataDir string `json:"dataDir"`
	WALDir  string `json:"walDir,omitempty"`
}
