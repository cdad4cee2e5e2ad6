package restore

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

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

	site Site
}

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
	for _, n := range p.Notes {
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
	Source    string          `json:"source"`
	SHA256    backup.Digest   `json:"sha256"` // see [Origin]
	Revision  backup.Revision `json:"revision"`
	ClusterID backup.MemberID `json:"clusterID"`
	Token     string          `json:"token"`
	Members   []backup.Member `json:"members"`
	Targets   []SummaryTarget `json:"targets"`
	Notes     []string        `json:"notes"`
	// Others are the commands that restore the other members.
	Others []Command `json:"others,omitempty"`
	// Accept is the command that accepts the history of the new cluster, if the
	// repository was not told of it.
	Accept string `json:"accept,omitempty"`
}

// SummaryTarget is one data directory.
type SummaryTarget struct {
	Name    string `json:"name"`
	DataDir string `json:"dataDir"`
	WALDir  string `json:"walDir,omitempty"`
}

// Summary describes w in a form that encodes to JSON.
func (w *Work) Summary() Summary {
	s := Summary{
		Source: w.Plan.Source.Name, SHA256: w.Plan.Source.SHA256, Revision: w.Plan.Source.Revision,
		ClusterID: w.Plan.ClusterID, Token: w.Plan.Token, Members: w.Plan.Members,
		Notes: append([]string{}, w.Plan.Notes...), Others: w.Others, Accept: w.Accept,
	}
	for _, t := range w.Targets {
		s.Targets = append(s.Targets, SummaryTarget{t.Member.Name, t.DataDir, t.WALDir})
	}
	return s
}
