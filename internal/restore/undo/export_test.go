package undo

import "context"

// ExecuteBefore is [Work.Execute] with a function that is called before every change that
// it makes. If it returns an error, the change is not made.
func (w *Work) ExecuteBefore(ctx context.Context, before func(op, path string) error) (*Done, error) {
	return w.execute(ctx, before)
}

// FinishBefore is [Finish] with such a function.
func FinishBefore(ctx context.Context, r Request, before func(op, path string) error) (*Done, error) {
	return finish(ctx, r, before)
}
