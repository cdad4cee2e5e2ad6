package s3_test

import (
	"errors"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/storage"
)

var (
	contents = regexp.MustCompile(`(?s)<Contents>.*?</Contents>`)
	keyOf    = regexp.MustCompile(`<Key>(.*?)</Key>`)
)

// listing makes fault handlers: the service lists what the server does, in another order.
func listing(less func(a, b string) int) fault {
	key := func(entry []byte) string { return string(keyOf.FindSubmatch(entry)[1]) }
	return func(p *proxy, w http.ResponseWriter, r *http.Request) {
		resp, err := p.forward(r, readBody(r))
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		found := contents.FindAll(body, -1)
		slices.SortFunc(found, func(a, b []byte) int { return less(key(a), key(b)) })
		body = contents.ReplaceAllFunc(body, func([]byte) []byte {
			next := found[0]
			found = found[1:]
			return next
		})
		_, _ = w.Write(body)
	}
}

func backwards(a, b string) int { return strings.Compare(b, a) }
func likeATree(a, b string) int {
	return strings.Compare(strings.ReplaceAll(a, "/", " "), strings.ReplaceAll(b, "/", " "))
}
func withoutCase(a, b string) int { return strings.Compare(strings.ToLower(a), strings.ToLower(b)) }

// TestCheckOrder: no repository is made in a bucket that does not list in the order of keys,
// although the first objects in it would be listed well enough.
func TestCheckOrder(t *testing.T) {
	p := startProxy(t)
	s := p.open(t)
	for name, less := range map[string]func(a, b string) int{
		"Backwards": backwards, "Tree": likeATree, "NoCase": withoutCase,
	} {
		before := p.count("ListObjectsV2")
		p.fail("ListObjectsV2", repeat(100, listing(less))...)
		_, err := repository.Create(t.Context(), storage.Answering(s))
		var hint *backup.HintError
		if !errors.Is(err, backup.ErrUnordered) || !errors.As(err, &hint) || p.count("ListObjectsV2") == before {
			t.Errorf("%s: got %v", name, err)
		}
		p.reset("ListObjectsV2")
	}
	direct := open(t, options(t, p.server))
	if left := keys(t, direct); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
	if _, err := repository.Create(t.Context(), storage.WithObserver(direct, func(storage.Event) {})); err != nil {
		t.Error(err)
	}
	if left := keys(t, direct); !slices.Equal(left, []string{backup.MarkerKey}) {
		t.Errorf("left: %q", left)
	}
}

// TestCheckOrder_Forbidden: credentials that may not delete can make a repository.
func TestCheckOrder_Forbidden(t *testing.T) {
	p := startProxy(t)
	p.fail("DeleteObject", repeat(100, answer(403, "AccessDenied", "no"))...)
	s := p.open(t)
	if _, err := repository.Create(t.Context(), s); err != nil {
		t.Error(err)
	}
	clusters, err := repository.At(s, "").Clusters(t.Context())
	if err != nil || len(clusters) != 0 {
		t.Errorf("got %q, %v", clusters, err)
	}
}
