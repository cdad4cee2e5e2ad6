// Package memberlog keeps of the lines that etcd's code logs while it makes the data of a
// member those that are true of the restore.
package memberlog

import (
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Filter passes on the warnings of etcd's code and, if they are asked for, its
// lines about members. Its other lines describe the database without content, and
// would mislead.
func Filter(lg *zap.Logger, members bool) *zap.Logger {
	return lg.WithOptions(zap.WrapCore(func(c zapcore.Core) zapcore.Core { return &core{c, members} }))
}

type core struct {
	zapcore.Core
	members bool
}

func (c *core) With(f []zapcore.Field) zapcore.Core {
	return &core{c.Core.With(f), c.members}
}

func (c *core) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if e.Level < zapcore.WarnLevel && !(c.members && e.Message == "added member") {
		return ce
	}
	return c.Core.Check(e, ce)
}
