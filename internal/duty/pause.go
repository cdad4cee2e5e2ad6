package duty

import (
	"context"
	"fmt"
	"time"

	"github.com/etcd-backupd/backupd/internal/repository/pause"
	"github.com/etcd-backupd/backupd/internal/schedule"
)

// resting notes what the repository says of pauses.
func resting(s *Subject, p pause.State) {
	s.Known.change(func(f *Facts) { f.Pauses = f.Pauses.With(p, s.Now()) })
}

// paused returns why a slot of a schedule does nothing, or "". down is why the repository could
// not be read just now: what is known of a pause then counts on, and the log tells it.
func paused(s *Subject, why schedule.Reason, down error) string {
	known := s.Known.Now().Pauses
	p := known.Now(s.Now())
	switch {
	case p == nil:
		return ""
	case why == schedule.Manual:
		s.Log.Warn("the cluster is paused, and this is done all the same: somebody asked for it", "pause", p.String())
		return ""
	case down == nil:
		return p.String()
	}
	text := fmt.Sprintf("%v (as it was read at %s; the repository cannot be read now: %v)",
		p, known.Read.UTC().Format(time.RFC3339), down)
	s.Log.Warn("the cluster is paused, as far as that is known", "pause", text)
	return text
}

// pausedNow is paused for a duty that does not look: it reads the pauses.
func pausedNow(ctx context.Context, s *Subject, why schedule.Reason) string {
	in, err := s.Open(ctx)
	if err == nil {
		var p pause.State
		if p, err = pause.Read(ctx, in, s.Now()); err == nil {
			resting(s, p)
		}
	}
	return paused(s, why, err)
}
