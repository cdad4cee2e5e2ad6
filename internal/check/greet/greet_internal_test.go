package greet

import (
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func TestClockOffset(t *testing.T) {
	for name, test := range map[string]struct{ date, received, want time.Duration }{ // sent at noon
		"Same":            {0, 100 * time.Millisecond, 0},
		"CutOff":          {-999 * time.Millisecond, time.Millisecond, 0},
		"Ahead":           {5 * time.Second, time.Second, 4 * time.Second},
		"Behind":          {-5 * time.Second, time.Second, -4 * time.Second},
		"SlowIsNotSkewed": {20 * time.Second, 30 * time.Second, 0},
	} {
		t.Run(name, func(t *testing.T) {
			if got := clockOffset(noon.Add(test.date), noon, noon.Add(test.received)); got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}
