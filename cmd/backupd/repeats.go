package main

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// repeatEvery is how often a warning or an error is logged that comes again and again.
const repeatEvery = time.Minute

// repeats is a handler that logs a warning or an error at once, and counts those like
// it that follow within a minute: the last of them is logged at the end of it, with
// their number.
type repeats struct {
	slog.Handler
	with string // the attributes that the logger adds to each line
	all  *repeated
}

func newRepeats(h slog.Handler) *repeats {
	return &repeats{Handler: h, all: &repeated{lines: map[string]*repeatedLine{}}}
}

// WithAttrs implements slog.Handler.
func (h *repeats) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := h.with
	for _, a := range attrs {
		with += likeness(a)
	}
	return &repeats{h.Handler.WithAttrs(attrs), with, h.all}
}

// WithGroup implements slog.Handler.
func (h *repeats) WithGroup(name string) slog.Handler {
	return &repeats{h.Handler.WithGroup(name), h.with + name + ".", h.all}
}

// Handle implements slog.Handler.
func (h *repeats) Handle(ctx context.Context, r slog.Record) error {
	if r.Level < slog.LevelWarn {
		return h.Handler.Handle(ctx, r)
	}
	key := fmt.Sprintf("%s %s %s", r.Level, r.Message, h.with)
	r.Attrs(func(a slog.Attr) bool {
		key += likeness(a)
		return true
	})
	if h.all.counts(key, h.Handler, r) {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

// likeness is the part of an attribute that lines must share to be alike. Numbers and
// times differ from line to line and say nothing new.
func likeness(a slog.Attr) string {
	switch v := a.Value.Resolve(); v.Kind() {
	case slog.KindString, slog.KindBool, slog.KindAny, slog.KindGroup:
		return fmt.Sprintf(" %s=%v", a.Key, v)
	}
	return ""
}

// repeated are the lines that were logged within the last minute.
type repeated struct {
	mu    sync.Mutex
	lines map[string]*repeatedLine
}

// repeatedLine is a line that was logged, and how often another like it was not.
type repeatedLine struct {
	handler slog.Handler
	last    slog.Record
	more    int
	timer   *time.Timer
}

// counts reports whether a line like this one was logged within the last minute, and
// counts it then.
func (r *repeated) counts(key string, h slog.Handler, record slog.Record) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if line := r.lines[key]; line != nil {
		line.handler, line.last, line.more = h, record.Clone(), line.more+1
		return true
	}
	r.lines[key] = &repeatedLine{timer: time.AfterFunc(repeatEvery, func() { r.next(key) })}
	return false
}

// next ends the minute of a line. If there were more, another minute begins.
func (r *repeated) next(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	line := r.lines[key]
	if line == nil {
		return // the end was quicker
	}
	if line.more == 0 {
		delete(r.lines, key)
		return
	}
	line.log()
	line.timer.Reset(repeatEvery)
}

// end logs what was counted until now.
func (r *repeated) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, line := range r.lines {
		line.timer.Stop()
		if line.more > 0 {
			line.log()
		}
		delete(r.lines, key)
	}
}

func (l *repeatedLine) log() {
	l.last.AddAttrs(slog.Int("repeated", l.more))
	_ = l.handler.Handle(context.Background(), l.last) // a log that cannot be written has nobody to tell
	l.more = 0
}
