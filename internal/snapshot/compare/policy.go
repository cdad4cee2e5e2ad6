package compare

import (
	"fmt"
	"slices"
	"strings"
)

// Policy says how many voting members a snapshot is compared with.
type Policy int

// Policies.
const (
	// One asks one member, and in each snapshot another one.
	One Policy = iota
	// All asks all members, one after the other, the leader last.
	All
	// Off asks nobody: snapshots are unconfirmed.
	Off
)

// Policies are the names of the policies, in their order.
var Policies = []string{"one", "all", "off"}

// String returns the name.
func (p Policy) String() string { return Policies[p] }

// ParsePolicy returns the policy of that name.
func ParsePolicy(name string) (Policy, error) {
	n := slices.Index(Policies, name)
	if n < 0 {
		return 0, fmt.Errorf("hash-check %q: want %s", name, strings.Join(Policies, ", "))
	}
	return Policy(n), nil
}
