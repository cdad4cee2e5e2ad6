//go:build unix && !linux

package child

func memoryRoom() int64 { return 0 }

func memoryKills() int64 { return 0 }

func limitMemory(int64) error { return nil }
