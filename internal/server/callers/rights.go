package callers

import "slices"

// Scope is the right that a caller has or a route needs.
type Scope int

const (
	None    Scope = iota // health
	Read                 // read
	Operate              // start jobs and pin; includes Read
)

func (s Scope) String() string { return [...]string{"none", "read", "operate"}[s] }

// grant allows a scope on some clusters; without clusters, on all.
type grant struct {
	scope    Scope
	clusters []string
}

// Rights are what one caller may do. Without any, only health is told.
type Rights []grant

// everything is the rights where no credentials are asked for.
var everything = Rights{{scope: Operate}}

// May reports whether they allow a scope on a cluster. The empty name stands for all
// clusters together.
func (r Rights) May(need Scope, cluster string) bool {
	return slices.ContainsFunc(r, func(g grant) bool {
		return g.scope >= need && (len(g.clusters) == 0 || slices.Contains(g.clusters, cluster))
	})
}

// Anywhere reports whether they allow a scope on any cluster.
func (r Rights) Anywhere(need Scope) bool {
	return slices.ContainsFunc(r, func(g grant) bool { return g.scope >= need })
}
