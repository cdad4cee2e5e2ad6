package bench

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

// probeEvery is how often each member is asked, in turn for the three kinds.
const probeEvery = 5 * time.Millisecond

// A probe is one request to one member and how long it took from the moment at which
// it was due, so that a member that stands still counts for all who wait.
type probe struct {
	member, kind string
	took         time.Duration
}

type times []probe

func (t times) only(keep func(probe) bool) times {
	return slices.DeleteFunc(slices.Clone(t), func(p probe) bool { return !keep(p) })
}

// quantile returns the time that the part q of all probes did not exceed.
func (t times) quantile(q float64) time.Duration {
	if len(t) == 0 {
		return 0
	}
	sorted := slices.SortedFunc(slices.Values(t), func(a, b probe) int { return int(a.took - b.took) })
	return sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)].took
}

func (t times) longest(keep func(probe) bool) time.Duration { return t.only(keep).quantile(1) }

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// table lists the times of every member.
func (t times) table(title string) string {
	var out strings.Builder
	fmt.Fprintf(&out, "%s\n%-8s %-20s %7s %9s %9s %9s", title, "member", "kind", "count", "p50", "p99", "longest")
	groups := map[[2]string]times{}
	for _, p := range t {
		key := [2]string{p.member, p.kind}
		groups[key] = append(groups[key], p)
	}
	var keys [][2]string
	for key := range groups {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b [2]string) int { return strings.Compare(a[0]+a[1], b[0]+b[1]) })
	for _, key := range keys {
		g := groups[key]
		fmt.Fprintf(&out, "\n%-8s %-20s %7d %7.1fms %7.1fms %7.1fms", key[0], key[1], len(g), ms(g.quantile(0.5)),
			ms(g.quantile(0.99)), ms(g.quantile(1)))
	}
	return out.String()
}

// probers ask each member, over a connection to it alone, while a phase lasts.
type probers struct {
	b       *testing.B
	clients map[string]*clientv3.Client // by the name of the member
}

func startProbers(b *testing.B, c *testserver.Cluster) *probers {
	b.Helper()
	p := &probers{b: b, clients: map[string]*clientv3.Client{}}
	for _, m := range c.Members {
		cl, err := clientv3.New(clientv3.Config{Endpoints: []string{m.Endpoint}, Logger: zap.NewNop()})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = cl.Close() })
		p.clients[m.Name] = cl
	}
	return p
}

// kinds are the requests of a prober. A cluster of one member gets puts alone, 200 a
// second; of three members each gets a put, a serializable and a linearizable read in
// turn, which are 200 puts a second too.
func (p *probers) kinds() []string {
	if len(p.clients) == 1 {
		return []string{"put"}
	}
	return []string{"put", "serializable read", "linearizable read"}
}

func ask(ctx context.Context, cl *clientv3.Client, kind, key string) (err error) {
	switch kind {
	case "put":
		_, err = cl.Put(ctx, key, strings.Repeat("v", 100))
	case "serializable read":
		_, err = cl.Get(ctx, key, clientv3.WithSerializable())
	default:
		_, err = cl.Get(ctx, key)
	}
	return err
}

// during measures while work runs.
func (p *probers) during(work func()) times {
	p.b.Helper()
	ctx, stop := context.WithCancel(context.Background())
	var mu sync.Mutex
	var all times
	var running sync.WaitGroup
	for name, cl := range p.clients {
		running.Go(func() {
			tick := time.NewTicker(probeEvery)
			defer tick.Stop()
			for n := 0; ; n++ {
				var due time.Time
				select {
				case <-ctx.Done():
					return
				case due = <-tick.C:
				}
				kind := p.kinds()[n%len(p.kinds())]
				running.Go(func() {
					err := ask(context.Background(), cl, kind, fmt.Sprintf("probe/%s/%d", name, n%1000))
					took := time.Since(due)
					if err != nil {
						p.b.Errorf("%s of %s: %v", kind, name, err)
					}
					mu.Lock()
					defer mu.Unlock()
					all = append(all, probe{name, kind, took})
				})
			}
		})
	}
	work()
	stop()
	running.Wait()
	return all
}
