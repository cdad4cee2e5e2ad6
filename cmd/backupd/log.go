package main

import (
	"fmt"
	"io"
	"log/slog"

	"go.uber.org/zap"
	"go.uber.org/zap/exp/zapslog"
	"go.uber.org/zap/zapcore"
)

// logs is one stream of log lines for our own code (slog) and for etcd's
// libraries (zap).
type logs struct {
	slog *slog.Logger
	zap  *zap.Logger
}

// newLogs makes the only zap core of the program. JSON lines have etcd's own
// keys, so a program that reads etcd's logs reads these.
func newLogs(w io.Writer, format, level string) (logs, error) {
	lvl, err := zapcore.ParseLevel(level)
	if err != nil {
		return logs{}, fmt.Errorf("log level %q is not known: want debug, info, warn or error", level)
	}
	enc := zap.NewProductionEncoderConfig()
	enc.EncodeTime = zapcore.RFC3339TimeEncoder
	enc.CallerKey = ""
	var e zapcore.Encoder
	switch format {
	case "text":
		enc.EncodeLevel = zapcore.CapitalLevelEncoder
		e = zapcore.NewConsoleEncoder(enc)
	case "json":
		e = zapcore.NewJSONEncoder(enc)
	default:
		return logs{}, fmt.Errorf("log format %q is not known: want text or json", format)
	}
	core := maskingCore{zapcore.NewCore(e, zapcore.Lock(zapcore.AddSync(w)), lvl)}
	// An error of a cluster or a store is no fault of the code.
	const noStacktrace = slog.LevelError + 1
	return logs{slog: slog.New(zapslog.NewHandler(core, zapslog.AddStacktraceAt(noStacktrace))), zap: zap.New(core)}, nil
}
