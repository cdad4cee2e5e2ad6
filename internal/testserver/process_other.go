//go:build !linux

package testserver

import "syscall"

// dieWithParent has no equivalent here: a test binary that is killed leaves
// its servers behind.
func dieWithParent() *syscall.SysProcAttr { return nil }

// stopped cannot be asked here; the signal is taken to have arrived.
func stopped(int) (bool, error) { return true, nil }
