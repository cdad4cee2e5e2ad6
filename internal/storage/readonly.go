package storage

import (
	"context"
	"fmt"
	"io"
)

// ReadOnly returns s without its abilities, and with operations that change something
// failing for that reason.
func ReadOnly(s Store, why error) Store { return &readOnly{s, why} }

type readOnly struct {
	Store
	why error
}

func (r *readOnly) Create(_ context.Context, key string, _ io.Reader) error {
	return fmt.Errorf("create %s: %w", key, r.why)
}

func (r *readOnly) Delete(_ context.Context, key string) error {
	return fmt.Errorf("delete %s: %w", key, r.why)
}
