package restore

import "context"

// ExecuteBefore is [Work.Execute] with a function that is called before every
// change by which a restore becomes visible. If it returns an error, the change
// is not made.
func (w *Work) ExecuteBefore(ctx context.Context, src Source, o Options, before func(op, path string) error) error {
	return w.execute(ctx, src, o, before)
}

// FinishInterruptedBefore is [FinishInterrupted] with such a function.
func FinishInterruptedBefore(ctx context.Context, s Site, r Request, o Origin,
	before func(op, path string) error,
) (*Summary, error) {
	return finishInterrupted(ctx, s, sameAs(&s, r, o), before)
}
