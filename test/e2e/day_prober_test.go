//go:build long

package e2e_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

// probes put and read on every member of a cluster, every 10 ms, and know the longest wait of each part
// of the day.
type probes struct {
	mu    sync.Mutex // guards what follows
	part  string
	parts []string
	worst map[[2]string]*waits // by part and member
	names []string             // of the members, as they came
	count int                  // puts that were answered
	stops map[string]func()    // by member
}

// waits are the longest waits for one member, and how many requests had an error.
type waits struct {
	put, read time.Duration
	failed    int
}

const (
	probeEvery = 10 * time.Millisecond
	probeLimit = 10 * time.Second // after that a probe has failed
	probeUser  = "prober"
)

func newProbes(t *testing.T) *probes {
	p := &probes{worst: map[[2]string]*waits{}, stops: map[string]func(){}}
	t.Cleanup(func() {
		for _, stop := range p.stops {
			stop()
		}
	})
	return p
}

// begin begins a part of the day.
func (p *probes) begin(part string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.part, p.parts = part, append(p.parts, part)
}

// watch probes a member until the test is over or leave is called. It has a login, which counts for
// nothing until auth is enabled.
func (p *probes) watch(t *testing.T, m *testserver.Member) {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{
		Endpoints: []string{m.ClientURL}, Username: probeUser, Password: probeUser, Logger: zap.NewNop(),
		DialTimeout: probeLimit,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	key := "probe/" + m.Name
	running.Go(func() {
		p.probe(ctx, m.Name, func(w *waits, d time.Duration) { w.put = max(w.put, d); p.count++ },
			func(ctx context.Context) error {
				_, err := client.Put(ctx, key, "a value of a probe")
				return err
			})
	})
	running.Go(func() {
		p.probe(ctx, m.Name, func(w *waits, d time.Duration) { w.read = max(w.read, d) },
			func(ctx context.Context) error {
				_, err := client.Get(ctx, key, clientv3.WithSerializable())
				return err
			})
	})
	p.names = append(p.names, m.Name)
	p.stops[m.Name] = func() {
		cancel()
		running.Wait()
		_ = client.Close()
	}
}

// leave ends the probes of a member.
func (p *probes) leave(m *testserver.Member) {
	p.stops[m.Name]()
	delete(p.stops, m.Name)
}

func (p *probes) probe(
	ctx context.Context, member string, note func(*waits, time.Duration), ask func(context.Context) error,
) {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		p.mu.Lock()
		at := [2]string{p.part, member}
		p.mu.Unlock()
		limited, cancel := context.WithTimeout(ctx, probeLimit)
		began := time.Now()
		err := ask(limited)
		took := time.Since(began)
		cancel()
		if ctx.Err() == nil {
			p.mu.Lock()
			w := p.worst[at]
			if w == nil {
				w = &waits{}
				p.worst[at] = w
			}
			if err != nil {
				w.failed++
			} else {
				note(w, took)
			}
			p.mu.Unlock()
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// goOn waits until etcd has answered so many more puts: time has passed for it.
func (p *probes) goOn(t *testing.T, n int) {
	t.Helper()
	answered := func() int {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.count
	}
	before := answered()
	waitFor(t, "etcd to go on", func() bool { return answered() >= before+n })
}

// report is a table of the longest waits, put/read in milliseconds.
func (p *probes) report() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "longest put/read in ms\t%s\n", strings.Join(p.names, "\t"))
	for _, part := range p.parts {
		fmt.Fprint(w, part)
		for _, name := range p.names {
			cell := ""
			if x := p.worst[[2]string{part, name}]; x != nil {
				cell = fmt.Sprintf("%d/%d", x.put.Milliseconds(), x.read.Milliseconds())
				if x.failed > 0 {
					cell += fmt.Sprintf(" (%d failed)", x.failed)
				}
			}
			fmt.Fprintf(w, "\t%s", cell)
		}
		fmt.Fprintln(w)
	}
	_ = w.Flush()
	return text.String()
}
