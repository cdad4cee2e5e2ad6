// Package priority lets this process give way to the others on its host: a backup may
// run on the cores of the etcd that it protects.
package priority

// step is how much lower the priority becomes. A thread of etcd then gets ten times the
// share of a core that one of ours gets, and goes first when it wakes up. At a priority
// lower still a busy host could starve the reader of a stream, and while a stream is open
// etcd cannot reuse pages.
const step = 10

// lowest is the lowest priority, as "nice" counts.
const lowest = 19
