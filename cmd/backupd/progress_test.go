package main

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Off a terminal there is a line every ten seconds, with the same numbers as a
// bar: done, total, speed, time left.
func TestProgress_OffTerminal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		p := newProgress(&out)
		p.report("receive", 0, 1000<<20)
		p.report("receive", 50<<20, 1000<<20)
		if out.Len() > 0 {
			t.Errorf("a line at once: %q", out.String())
		}
		time.Sleep(10 * time.Second) // fake time
		p.report("receive", 100<<20, 1000<<20)
		want := "receive: 100 MiB of 1000 MiB (10%), 10 MiB/s, 1m30s left\n"
		if out.String() != want {
			t.Errorf("got %q, want %q", out.String(), want)
		}
		time.Sleep(time.Second)
		p.report("receive", 110<<20, 1000<<20)
		if got := strings.Count(out.String(), "\n"); got != 1 {
			t.Errorf("%d lines after eleven seconds, want one", got)
		}
		p.stop()
	})
}
