package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// reportEvery is how often progress is written if there is no terminal.
const reportEvery = 10 * time.Second

// progress shows the progress of each stage: bars on a terminal, else a line now and
// then. It is also the writer for log lines, which must not run into the bars.
type progress struct {
	w    io.Writer
	bars *mpb.Progress // nil off a terminal

	mu     sync.Mutex // guards stages
	stages map[backup.Stage]*stage
}

type stage struct {
	bar      *mpb.Bar
	last     int64
	started  time.Time
	reported time.Time
	total    int64
}

func newProgress(w io.Writer) *progress {
	p := &progress{w: w, stages: map[backup.Stage]*stage{}}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb" {
		p.bars = mpb.New(mpb.WithOutput(w), mpb.WithWidth(40), mpb.WithAutoRefresh())
	}
	return p
}

// Write prints a log line above the bars.
func (p *progress) Write(b []byte) (int, error) {
	if p.bars != nil {
		if n, err := p.bars.Write(b); err == nil {
			return n, nil
		}
	}
	return p.w.Write(b)
}

// report shows that a stage has done so many bytes of total; a total of 0 is not
// known. It may be called by several goroutines.
func (p *progress) report(name backup.Stage, done, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stages[name]
	now := time.Now()
	if s == nil {
		s = &stage{started: now, reported: now}
		p.stages[name] = s
		if p.bars != nil {
			s.bar = newBar(p.bars, name)
		}
	}
	s.total = max(s.total, total)
	if s.bar != nil {
		s.bar.SetTotal(max(s.total, done+1), false)
		s.bar.SetCurrent(done)
		if s.total > 0 && done >= s.total {
			s.bar.SetTotal(done, true)
		}
		return
	}
	if now.Sub(s.reported) >= reportEvery {
		fmt.Fprintln(p.w, line(name, done, s.total, done-s.last, now.Sub(s.reported)))
		s.reported, s.last = now, done
	}
}

func newBar(bars *mpb.Progress, name backup.Stage) *mpb.Bar {
	return bars.New(0, mpb.BarStyle(),
		mpb.BarRemoveOnComplete(),
		mpb.PrependDecorators(decor.Name(string(name), decor.WC{W: 8, C: decor.DindentRight})),
		mpb.AppendDecorators(decor.CountersKibiByte("% .1f / % .1f"), decor.Name("  "),
			decor.AverageSpeed(decor.SizeB1024(0), "% .1f"), decor.Name("  eta "), decor.AverageETA(decor.ET_STYLE_GO)))
}

// line shows the same four numbers as a bar.
func line(name backup.Stage, done, total, since int64, in time.Duration) string {
	rate := float64(since) / in.Seconds()
	s := fmt.Sprintf("%s: %s", name, humanize.IBytes(uint64(max(done, 0))))
	if total > 0 {
		s += fmt.Sprintf(" of %s (%d%%)", humanize.IBytes(uint64(total)), 100*done/total)
	}
	s += fmt.Sprintf(", %s/s", humanize.IBytes(uint64(max(rate, 0))))
	if total > done && rate > 0 {
		s += fmt.Sprintf(", %s left", (time.Duration(float64(total-done)/rate) * time.Second).Round(time.Second))
	}
	return s
}

// stop removes the bars before anything else is printed. A nil progress is stopped
// already.
func (p *progress) stop() {
	if p == nil || p.bars == nil {
		return
	}
	p.mu.Lock()
	for _, s := range p.stages {
		s.bar.Abort(true)
	}
	p.mu.Unlock()
	p.bars.Wait()
	p.bars = nil
}
