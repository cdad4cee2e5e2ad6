package main

import (
	"errors"
	"reflect"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/etcd-backupd/backupd/internal/secret"
)

// maskingCore keeps credentials in addresses out of the log: etcd's libraries log the URLs of
// members as they are.
type maskingCore struct{ zapcore.Core }

func (c maskingCore) With(fields []zapcore.Field) zapcore.Core {
	return maskingCore{c.Core.With(masked(fields))}
}

func (c maskingCore) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return checked.AddCore(e, c)
	}
	return checked
}

func (c maskingCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	e.Message = secret.ShowText(e.Message)
	return c.Core.Write(e, masked(fields))
}

func masked(fields []zapcore.Field) []zapcore.Field {
	out := make([]zapcore.Field, len(fields))
	for i, f := range fields {
		out[i] = maskField(f)
	}
	return out
}

func maskField(f zapcore.Field) zapcore.Field {
	switch f.Type {
	case zapcore.StringType:
		f.String = secret.ShowText(f.String)
	case zapcore.ErrorType:
		if err, ok := f.Interface.(error); ok && secret.ShowText(err.Error()) != err.Error() {
			return zap.NamedError(f.Key, errors.New(secret.ShowText(err.Error())))
		}
	case zapcore.ArrayMarshalerType, zapcore.ReflectType:
		list := reflect.ValueOf(f.Interface)
		if list.Kind() != reflect.Slice || list.Type().Elem().Kind() != reflect.String {
			return f
		}
		var texts []string
		for i := range list.Len() {
			texts = append(texts, secret.ShowText(list.Index(i).String()))
		}
		return zap.Strings(f.Key, texts)
	}
	return f
}
