package notify

import (
	"context"
	"log/slog"
)

// Try delivers one event, even if its kind is not among the target's, and does not
// retry. Its error holds no secret.
func (t *Target) Try(ctx context.Context, log *slog.Logger, e Event) error {
	return t.sender.send(ctx, log, e)
}
