package callers

import (
	"errors"
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
			if f.count("a") {
				t.Fatalf("too many after %d", i)
			}
		}
		if !f.count("a") || f.count("b") {
			t.Error("a is not limited, or b is")
		}
		for i := range maxAddresses {
			f.count(fmt.Sprint(i))
		}
		if !f.count("new") || len(f.counts) != maxAddresses {
			t.Errorf("%d addresses are remembered", len(f.counts))
		}
		time.Sleep(time.Second)
		if f.count("a") || f.count("new") {
			t.Error("a second did not end it")
		}
	})
}

// Ten guesses a second of one address. The right token works meanwhile: many callers may
// share an address.
func TestGuard_LimitsGuesses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(file, []byte("the-right-token-0123"), 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		g, err := New([]Caller{{TokensFile: file}}, false, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		status := func(addr, token string) int {
			r := httptest.NewRequest("GET", "/api/v1/jobs", nil)
			r.RemoteAddr = addr + ":1234"
			r.Header.Set("Authorization", "Bearer "+token)
			switch _, err := g.Rights(r); {
			case errors.Is(err, ErrTooMany):
				return http.StatusTooManyRequests
			case err != nil:
				return http.StatusUnauthorized
			}
			return http.StatusOK
		}
		const wrong, right = "a-wrong-token-0123", "the-right-token-0123"
		for i := range maxFailures {
			if got := status("192.0.2.1", wrong); got != http.StatusUnauthorized {
				t.Fatalf("guess %d: status %d", i, got)
			}
		}
		if got := status("192.0.2.1", wrong); got != http.StatusTooManyRequests {
			t.Errorf("one guess more: status %d", got)
		}
		if got := status("192.0.2.1", right); got != http.StatusOK {
			t.Errorf("the right token from the same address: status %d", got)
		}
		time.Sleep(time.Second)
		if got := status("192.0.2.1", wrong); got != http.StatusUnauthorized {
			t.Errorf("a second later: status %d", got)
		}
	})
}
