// Package rounds sets the length of random tests.
package rounds

import (
	"os"
	"strconv"
)

// Of returns how many rounds a random test runs: n, or the percentage of n in the
// variable BACKUPD_TEST_ROUNDS, but at least one.
func Of(n int) int {
	text := os.Getenv("BACKUPD_TEST_ROUNDS")
	if text == "" {
		return n
	}
	percent, err := strconv.Atoi(text)
	if err != nil || percent < 1 {
		panic("BACKUPD_TEST_ROUNDS is " + strconv.Quote(text) + ": want a percentage")
	}
	return max(1, n*percent/100)
}
