package notify

import (
	"cmp"
	"slices"
	"time"
)

// Memory is what a notifier knows of one cluster in a repository. It may outlive the
// process.
type Memory struct {
	// Failing are the tasks that fail.
	Failing []Remembered `json:"failing,omitempty"`
	// Told are the troubles that a receiver has heard of, and whose end it has not.
	Told []Remembered `json:"told,omitempty"`
}

// Remembered is one trouble.
type Remembered struct {
	Receiver string    `json:"receiver,omitempty"` // a short name of the receiver that was told
	Job      string    `json:"job"`
	File     string    `json:"file,omitempty"` // of a certificate
	Kind     Kind      `json:"kind"`
	Since    time.Time `json:"since"`
	At       time.Time `json:"at,omitzero"` // of the event that was delivered
}

// Remember returns what is known of a cluster in a repository. What concerns no cluster
// alone is known under empty names.
func (n *Notifier) Remember(repository, cluster string) Memory {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out Memory
	ours := func(of task) bool { return of.repository == repository && of.cluster == cluster }
	for of, t := range n.tracker {
		if ours(of) {
			out.Failing = append(out.Failing, Remembered{Job: of.job, File: of.file, Kind: t.kind, Since: t.since})
		}
	}
	for _, q := range n.queues {
		for of, t := range q.desk.told {
			if ours(of) {
				out.Told = append(out.Told, Remembered{q.target.id, of.job, of.file, t.kind, t.since, t.at})
			}
		}
	}
	for _, list := range [][]Remembered{out.Failing, out.Told} {
		slices.SortFunc(list, func(a, b Remembered) int {
			return cmp.Or(cmp.Compare(a.Job, b.Job), cmp.Compare(a.File, b.File), cmp.Compare(a.Receiver, b.Receiver))
		})
	}
	return out
}

// Recall gives the notifier back what an earlier process knew of a cluster in a
// repository. It is called before the first event of the cluster.
func (n *Notifier) Recall(repository, cluster string, m Memory) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, r := range m.Failing {
		if r.Kind.trouble() {
			n.tracker[task{r.Job, repository, cluster, r.File}] = trouble{kind: r.Kind, since: r.Since}
		}
	}
	for _, r := range m.Told {
		for _, q := range n.queues {
			if q.target.id == r.Receiver && r.Kind.trouble() {
				q.desk.told[task{r.Job, repository, cluster, r.File}] = notice{r.Kind, r.Since, r.At}
			}
		}
	}
}
