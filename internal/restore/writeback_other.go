//go:build unix && !linux

package restore

import "os"

func beginWriteback(*os.File, int64, int64) {}
