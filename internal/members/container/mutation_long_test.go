//go:build long

package container_test

import "testing"

// TestLongRead_Mutated: all of them.
func TestLongRead_Mutated(t *testing.T) { mutate(t, 1) }
