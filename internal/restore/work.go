package restore

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/publish"
)

// Work is a plan for one site that [Site.Check] has accepted. Only such a plan can
// be executed.
type Work struct {
	Plan *Plan
	// Targets are the members whose data directories are made here.
	Targets []Target
	// Others are the commands that restore the other members of the plan, for
	// [Work.Summary]. The caller sets them.
	Others []Command
	// Accept is the command that accepts the history of the new cluster, likewise. It
	// is empty if the repository knows of the cluster.
	Accept string

	site   Site
	notes  []string          // on this host
	asides map[string]string // where old data is, by the folder that it was in

	published bool
}

// Published reports whether something was put into place, or will be by the next run.
func (w *Work) Published() bool { return w.published }

// Notes are facts that the operator should know: of the plan, and of this host.
func (w *Work) Notes() []string { return slices.Concat(w.Plan.Notes, w.notes) }

// folders returns all folders that are restored; the first is a data directory.
func (w *Work) folders() []*folder {
	var out []*folder
	for _, t := range w.Targets {
		out = append(out, t.folders()...)
	}
	return out
}

// groups returns the folders of each member.
func (w *Work) groups() []publish.Group {
	var out []publish.Group
	for _, t := range w.Targets {
		var g publish.Group
		for _, f := range t.folders() {
			g = append(g, f.Folder)
		}
		out = append(out, g)
	}
	return out
}

// WriteTo prints for people everything that w will do.
func (w *Work) WriteTo(out io.Writer) (int64, error) {
	var b strings.Builder
	p := w.Plan
	fmt.Fprintf(&b, "restore %s\n", p.Source.Name)
	tw := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	if !p.Source.Taken.IsZero() {
		fmt.Fprintf(tw, "  taken\t%s\n", p.Source.Taken.UTC().Format(time.RFC3339))
	}
	if p.Source.EtcdVersion != "" {
		fmt.Fprintf(tw, "  etcd\t%s\n", p.Source.EtcdVersion)
	}
	fmt.Fprintf(tw, "  revision\t%s\n", p.revision())
	fmt.Fprintf(tw, "  cluster\t%s\n", p.ClusterID)
	fmt.Fprintf(tw, "  token\t%s\n", p.Token)
	for _, m := range p.Members {
		fmt.Fprintf(tw, "  member\t%s (%s) %s\n", m.Name, m.ID, strings.Join(m.PeerURLs, ","))
	}
	for _, t := range w.Targets {
		fmt.Fprintf(tw, "  data directory\t%s (%s)%s\n", t.DataDir, t.Member.Name, t.data.describe())
		if t.wal != nil {
			fmt.Fprintf(tw, "  WAL directory\t%s (%s)%s\n", t.WALDir, t.Member.Name, t.wal.describe())
		}
	}
	_ = tw.Flush() // a strings.Builder does not fail
	for _, n := range w.Notes() {
		fmt.Fprintf(&b, "  note: %s\n", n)
	}
	n, err := io.WriteString(out, b.String())
	return int64(n), err
}

// Command is a command line that restores one member.
type Command struct {
	Member string `json:"member"`
	// Line is quoted for a shell.
	Line string `json:"line"`
}

// Summary says what a restore has made. It is the same whether the restore was
// interrupted or not.
type Summary struct {
	Source   string          `json:"restoredFrom"`
	SHA256   backup.Digest   `json:"sha256"` // see [Origin]
	Revision backup.Revision `json:"revision"`
	// BumpRevision is added to it.
	BumpRevision uint64 `json:"bumpRevision,omitempty"`
	// Taken and EtcdVersion are those of the [Origin].
	Taken       time.Time       `json:"startedAt,omitzero"`
	EtcdVersion string          `json:"etcdVersion,omitempty"`
	ClusterID   backup.MemberID `json:"clusterID"`
	Token       string          `json:"token"`
	Members     []backup.Member `json:"members"`
	Targets     []SummaryTarget `json:"targets"`
	Notes       []string        `json:"notes"`
	// Others are the commands that restore the other members.
	Others []Command `json:"others,omitempty"`
	// Accept is the command that accepts the history of the new cluster, if the
	// repository was not told of it.
	Accept string `json:"accept,omitempty"`
	// Start is the command that starts the member, if it is known.
	Start string `json:"start,omitempty"`
}

// SummaryTarget is one data directory.
type SummaryTarget struct {
	Name    string `json:"member"`
	DataDir string `json:"dataDir"`
	WALDir  string `json:"walDir,omitempty"`
	// Replaces is true if data in the way is moved aside.
	Replaces bool `json:"replaces,omitempty"`
	// OldData is where it is, once it was moved.
	OldData []string `json:"oldData,omitempty"`
	// Strays are names of entries that are not etcd's, and are moved with the old data.
	Strays []string `json:"strays,omitempty"`
}

// moved says where old data went.
func (s *Summary) moved(asides map[string]string) {
	for i, t := range s.Targets {
		for _, dir := range []string{t.DataDir, t.WALDir} {
			if aside := asides[dir]; aside != "" {
				s.Targets[i].OldData = append(s.Targets[i].OldData, aside)
			}
		}
	}
}

// Summary describes w in a form that encodes to JSON.
func (w *Work) Summary() Summary {
	s := Summary{
		Source: w.Plan.Source.Name, SHA256: w.Plan.Source.SHA256, Revision: w.Plan.Source.Revision,
		BumpRevision: w.Plan.Request.BumpRevision,
		Taken:        w.Plan.Source.Taken, EtcdVersion: w.Plan.Source.EtcdVersion,
		ClusterID: w.Plan.ClusterID, Token: w.Plan.Token, Members: w.Plan.Members,
		Notes: append([]string{}, w.Notes()...), Others: w.Others, Accept: w.Accept, Start: w.site.Start,
	}
	for _, t := range w.Targets {
		replaces := slices.ContainsFunc(t.folders(), func(f *folder) bool { return len(f.Old) > 0 })
		s.Targets = append(s.Targets, SummaryTarget{
			Name: t.Member.Name, DataDir: t.DataDir, WALDir: t.WALDir, Replaces: replaces, Strays: t.strays(),
		})
	}
	s.moved(w.asides)
	return s
}
