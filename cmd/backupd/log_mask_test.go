package main

import (
	"errors"
	"strings"
	"testing"

	"go.uber.org/zap"
)

// TestLogs_Masked: etcd's libraries log URLs with what they hold.
func TestLogs_Masked(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		var out strings.Builder
		l, err := newLogs(&out, format, "debug")
		if err != nil {
			t.Fatal(err)
		}
		const url = "http://p:SECRET@a:1"
		l.zap.With(zap.String("with", url)).Info("ask "+url, zap.Strings("urls", []string{url, "http://b:2"}),
			zap.Error(errors.New("no answer of "+url)),
			zap.Any("any", []string{url}), zap.String("list", "http://c:3,http://d:4"))
		l.slog.With("with", url).Warn("ask "+url, "urls", []string{url}, "err", errors.New(url))
		got := out.String()
		if strings.Contains(got, "SECRET") || strings.Count(got, "http://***@a:1") != 9 ||
			!strings.Contains(got, "http://b:2") || !strings.Contains(got, "http://c:3,http://d:4") {
			t.Errorf("%s: %s", format, got)
		}
	}
}
