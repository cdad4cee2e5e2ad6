package notify

import (
	"context"
	"log/slog"
)

// Try delivers one event, whatever the target is told of otherwise, and does not
// try again. Its error holds no secret.
func (t *Target) Try(ctx context.Context, log *slog.Logger, e Event) error {
	return t.sender.send(ctx, log, e)
}
