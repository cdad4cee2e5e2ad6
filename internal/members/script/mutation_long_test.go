//go:build long

package script_test

import "testing"

// TestLongRead_Mutated: all of them.
func TestLongRead_Mutated(t *testing.T) { mutate(t, 1) }
