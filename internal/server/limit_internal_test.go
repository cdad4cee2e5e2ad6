package server

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

func TestFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f failures
		for i := range maxFailures {
			if f.exceeded("a") {
				t.Fatalf("exceeded after %d", i)
			}
			f.count("a")
		}
		if !f.exceeded("a") || f.exceeded("b") {
			t.Errorf("a is limited: %v, and b: %v", f.exceeded("a"), f.exceeded("b"))
		}
		for i := range maxAddresses {
			f.count(fmt.Sprint(i))
		}
		if f.count("new") || f.exceeded("new") || len(f.counts) != maxAddresses {
			t.Errorf("%d addresses are remembered", len(f.counts))
		}
		time.Sleep(time.Second)
		if f.exceeded("a") || !f.count("new") {
			t.Error("a second did not end it")
		}
	})
}

// Ten guesses a second of one address, and not even the right token until it is
// over; nobody else is held up.
func TestGuard_LimitsGuesses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(file, []byte("the-right-token-0123"), 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		g, err := newGuard(Options{ReadTokensFile: file}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		status := func(addr, token string) int {
			r := httptest.NewRequest("GET", "/api/v1/jobs", nil)
			r.RemoteAddr = addr + ":1234"
			r.Header.Set("Authorization", "Bearer "+token)
			if p := g.check(r, scopeRead); p != nil {
				return p.Status
			}
			return http.StatusOK
		}
		for i := range maxFailures {
			if got := status("192.0.2.1", "a-wrong-token-0123"); got != http.StatusUnauthorized {
				t.Fatalf("guess %d: status %d", i, got)
			}
		}
		for addr, want := range map[string]int{"192.0.2.1": http.StatusTooManyRequests, "192.0.2.2": http.StatusOK} {
			if got := status(addr, "the-right-token-0123"); got != want {
				t.Errorf("the right token from %s: status %d, want %d", addr, got, want)
			}
		}
		time.Sleep(time.Second)
		if got := status("192.0.2.1", "the-right-token-0123"); got != http.StatusOK {
			t.Errorf("a second later: status %d", got)
		}
	})
}
