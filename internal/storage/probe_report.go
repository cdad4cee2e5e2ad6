package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// maxSkew is how much the clocks may differ before it is worth a warning.
const maxSkew = time.Minute

// report collects what a probe finds.
type report struct{ findings []backup.Finding }

func (r *report) ok(step, format string, args ...any) {
	r.findings = append(r.findings, backup.Finding{Subject: step, Level: backup.LevelOK,
		Text: fmt.Sprintf(format, args...)})
}

func (r *report) warn(step, todo, format string, args ...any) {
	r.findings = append(r.findings, backup.Finding{Subject: step, Level: backup.LevelWarning,
		Text: fmt.Sprintf(format, args...), Hint: todo})
}

func (r *report) fail(step, todo, format string, args ...any) {
	r.findings = append(r.findings, backup.Finding{Subject: step, Level: backup.LevelFailure,
		Text: fmt.Sprintf(format, args...), Hint: todo})
}

// failed is fail for an error of the store. Missing permission comes first; then
// the error's own advice.
func (r *report) failed(step string, err error, permission string) {
	var hint *backup.HintError
	todo := ""
	switch {
	case errors.Is(err, fs.ErrPermission):
		todo = "the credentials must be allowed to " + permission
	case errors.As(err, &hint):
		todo = hint.Hint
	}
	r.fail(step, todo, "%v", err)
}

func (r *report) clock(made, began, ended time.Time) {
	const step, todo = "clock", "synchronize both clocks (NTP): backupd needs them to know the age of an object"
	switch skew := skew(made, began, ended); {
	case made.IsZero():
		r.warn(step, "", "the store does not report when an object was created")
	case skew > maxSkew:
		r.warn(step, todo, "the store's clock is %v ahead of this machine's", skew.Round(time.Second))
	case skew < -maxSkew:
		r.warn(step, todo, "the store's clock is %v behind this machine's", -skew.Round(time.Second))
	default:
		r.ok(step, "this machine and the store agree on the time, to a minute")
	}
}

// skew returns how far a time is outside of an interval. Stores cut off fractions
// of seconds.
func skew(t, from, to time.Time) time.Duration {
	from = from.Truncate(time.Second)
	switch {
	case t.Before(from):
		return t.Sub(from)
	case t.After(to):
		return t.Sub(to)
	}
	return 0
}
