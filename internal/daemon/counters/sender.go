package counters

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Labels are names with their values.
type Labels [][2]string

// Sender sends what is true at the moment of a scrape.
type Sender struct{ C chan<- prometheus.Metric }

// Send sends a gauge.
func (s Sender) Send(name, help string, value float64, of Labels) {
	names, values := make([]string, len(of)), make([]string, len(of))
	for i, l := range of {
		names[i], values[i] = l[0], l[1]
	}
	desc := prometheus.NewDesc(name, help, names, nil)
	s.C <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, values...)
}

// Time sends a moment, unless it never came.
func (s Sender) Time(name, help string, t time.Time, of Labels) {
	if !t.IsZero() {
		s.Send(name, help, float64(t.UnixMilli())/1000, of)
	}
}

// Truth is 1 for what is true, else 0.
func Truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
