package notify

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
)

// Receiver is a [Webhook], [Slack], [Healthchecks] or [Command].
type Receiver interface {
	// prepare checks the receiver without sending anything to it.
	prepare() (sender, error)
}

// sender delivers one event. It marks errors that another try would only repeat by
// backoff.Permanent. No error holds a secret.
type sender interface {
	kind() string
	send(ctx context.Context, log *slog.Logger, e Event) error
}

// Target is a receiver with the events it gets.
type Target struct {
	sender   sender
	clusters []string
	kinds    []Kind
	id       string // of the receiver, its clusters and kinds
}

// NewTarget checks a receiver and returns a target that gets events of the clusters
// (empty: all) and of the kinds (empty: [DefaultKinds]). A target for successes gets
// recoveries too, because a recovery replaces a success. One for failures gets new
// histories too, because the backup that finds one has failed.
func NewTarget(to Receiver, clusters []string, kinds []Kind) (*Target, error) {
	possible := Kinds(to)
	for _, k := range kinds {
		if !slices.Contains(possible, k) {
			return nil, fmt.Errorf("unknown kind of event %q: want %s", k, list(possible))
		}
	}
	s, err := to.prepare()
	if err != nil {
		return nil, err
	}
	if len(kinds) == 0 {
		kinds = DefaultKinds(to)
	}
	return &Target{sender: s, clusters: clusters, kinds: kinds, id: identify(to, clusters, kinds)}, nil
}

// Kinds returns the kinds of events that a receiver can get. A ping URL stands for the
// backups of a cluster: neither a prune nor a certificate may raise its alarm.
func Kinds(to Receiver) []Kind {
	all := []Kind{Failed, Recovered, PruneFailed, NewHistory, CertificateExpiring, Succeeded, Started}
	if _, ok := to.(Healthchecks); ok {
		all = slices.DeleteFunc(all, func(k Kind) bool { return k == PruneFailed || k == CertificateExpiring })
	}
	return all
}

// DefaultKinds returns the kinds of events that a receiver gets if nothing else is
// said: all, but a start and a success only to a ping URL.
func DefaultKinds(to Receiver) []Kind {
	_, pings := to.(Healthchecks)
	return slices.DeleteFunc(Kinds(to), func(k Kind) bool { return !pings && (k == Started || k == Succeeded) })
}

func list(kinds []Kind) string {
	var names []string
	for _, k := range kinds {
		names = append(names, string(k))
	}
	return strings.Join(names[:len(names)-1], ", ") + " or " + names[len(names)-1]
}

// identify returns a short name of a target that lasts over restarts. It is too short
// to tell whether a guess at a secret URL is right.
func identify(to Receiver, clusters []string, kinds []Kind) string {
	text, _ := json.Marshal([]any{fmt.Sprintf("%T", to), to, clusters, kinds}) // they hold texts alone
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:4])
}

// wants reports whether the target gets e. An event without a cluster concerns all.
func (t *Target) wants(e Event) bool {
	if len(t.clusters) > 0 && e.Cluster != "" && !slices.Contains(t.clusters, e.Cluster) {
		return false
	}
	if t.pings() && !pingWants(e) {
		return false
	}
	return slices.Contains(t.kinds, e.Kind) ||
		e.Kind == Recovered && slices.Contains(t.kinds, Succeeded) ||
		e.Kind == NewHistory && slices.Contains(t.kinds, Failed)
}

// ended reports whether the target gets the recovery e, of whose trouble it may not
// have been told.
func (t *Target) ended(e Event) bool {
	success := e
	success.Kind = Succeeded
	return e.ends == Failed || t.wants(Event{Kind: e.ends, Job: e.Job}) || !success.quiet() && t.wants(success)
}

func (t *Target) pings() bool {
	_, ok := t.sender.(*ping)
	return ok
}
