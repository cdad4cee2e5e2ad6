package s3_test

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"

	"github.com/etcd-backupd/backupd/internal/storage"
)

// TestList_Cost: a listing costs the pages that it yields, wherever it begins,
// and none where nothing can be.
func TestList_Cost(t *testing.T) {
	p := startProxy(t)
	s := p.open(t)
	for i := range 10 {
		if err := s.Create(t.Context(), fmt.Sprintf("a/%d", i), stream(content(1))); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		prefix, after  string
		objects, pages int
	}{
		{"a/", "", 10, 5},
		{"a/", "0", 10, 5},
		{"a/", "a/5", 4, 2},
		{"", "a/7", 2, 1},
		{"a/", "a/9", 0, 1},
		{"a/", "a0", 0, 0},
	} {
		before, n := p.count("ListObjectsV2"), 0
		for _, err := range s.ListPages(t.Context(), tt.prefix, tt.after, 2) {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		if pages := p.count("ListObjectsV2") - before; n != tt.objects || pages != tt.pages {
			t.Errorf("list %q after %q: %d objects in %d pages, want %d in %d",
				tt.prefix, tt.after, n, pages, tt.objects, tt.pages)
		}
	}
}

// TestList_StartIgnored: a service that lists from the beginning each time.
func TestList_StartIgnored(t *testing.T) {
	p := startProxy(t)
	p.fail("ListObjectsV2", func(_ *proxy, w http.ResponseWriter, r *http.Request) {
		if got := r.URL.Query().Get("start-after"); got != "some/prefix/k1" {
			t.Errorf("asked for keys after %q", got)
		}
		_, _ = io.WriteString(w, `<ListBucketResult><Contents><Key>some/prefix/k1</Key></Contents>`+
			`<Contents><Key>some/prefix/k2</Key></Contents></ListBucketResult>`)
	})
	var got []string
	for o, err := range p.open(t).List(t.Context(), "k", "k1") {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, o.Key)
	}
	if want := []string{"k2"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestFolders_Cost: one page for each folder, and one that finds none.
func TestFolders_Cost(t *testing.T) {
	p := startProxy(t)
	s := p.open(t)
	for _, key := range []string{"a-b/1", "a/1", "a/2", "a/3", "backupd.json", "c/1", "c/d/1"} {
		if err := s.Create(t.Context(), key, stream(content(1))); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for f, err := range storage.Folders(t.Context(), s, "") {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, f.Name)
	}
	if want := []string{"a-b", "a", "c"}; !slices.Equal(got, want) || p.count("ListObjectsV2") != 4 {
		t.Errorf("got %q in %d pages, want %q in 4", got, p.count("ListObjectsV2"), want)
	}
}
