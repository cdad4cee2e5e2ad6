package config_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/etcd-backupd/backupd/internal/config"
)

// placed is a file with such repositories, clusters and spool.
func placed(repositories, clusters, spool string) string {
	text := "repositories:\n" + repositories + "clusters:\n"
	for _, name := range strings.Fields(clusters) {
		text += fmt.Sprintf("- {name: %s, repository: a, endpoints: ['h:1'], snapshot: {schedule: '@daily'}}\n", name)
	}
	return text + "daemon:\n  spool:\n    folder: " + spool + "\n"
}

// first returns the first line of each problem, without the lines of the file.
func first(problems []config.Problem) (out []string) {
	for _, p := range problems {
		line, _, _ := strings.Cut(p.String(), "\n")
		out = append(out, line)
	}
	return out
}

// TestPlaces: names that some file system does not tell apart, and places inside
// others, are refused with both their lines.
func TestPlaces(t *testing.T) {
	for name, c := range map[string]struct {
		repositories, clusters, spool string
		want                          []string
	}{
		"Fine": {"  a: {url: 'file:///b/a'}\n  c: {url: 'file:///b/ab'}\n  d: {url: 's3://b/a'}\n", "x y", "/b", nil},
		"Same": {"  a: {url: 'file:///b'}\n  c: {url: 'file:///b/'}\n", "x", "/spool", nil}, // with other recipients
		"Clusters": {"  a: {url: 'file:///b'}\n", "prod Prod", "/spool", []string{
			`test.yaml:5:10: clusters[1].name: "Prod" and "prod", in line 4, differ by case alone: some file systems ` +
				`do not tell them apart`}},
		"Repositories": {"  a: {url: 'file:///b'}\n  A: {url: 'file:///c'}\n", "x", "/spool", []string{
			`test.yaml:2:6: repositories.a: "a" and "A", in line 3, differ by case alone: some file systems do not ` +
				`tell them apart`}},
		"Nested": {"  a: {url: 'file:///b/c'}\n  d: {url: 'file:///b'}\n", "x", "/spool", []string{
			`test.yaml:2:12: repositories.a.url: the repository is inside d, which would take its objects for its own, in ` +
				`line 3`}},
		"Unclean": {"  a: {url: 'file:///b/../e/c/'}\n  d: {url: 'file:///e'}\n", "x", "/spool", []string{
			`test.yaml:2:12: repositories.a.url: the repository is inside d, which would take its objects for its own, in ` +
				`line 3`}},
		"Bucket": {"  a: {url: 's3://b'}\n  d: {url: 's3://b/x/y'}\n", "x", "/spool", []string{
			`test.yaml:3:12: repositories.d.url: the repository is inside a, which would take its objects for its own, in ` +
				`line 2`}},
		"OtherServer": {"  a: {url: 's3://b'}\n  d: {url: 's3://b/x', s3: {endpoint: 'https://h'}}\n", "x", "/spool",
			nil},
		"Spool": {"  a: {url: 'file:///b'}\n", "x", "/b/spool", []string{
			`test.yaml:7:13: daemon.spool.folder: the spool is inside the repository a, where its databases would ` +
				`lie unencrypted, in line 2`}},
		"SpoolItself": {"  a: {url: 'file:///b'}\n", "x", "/b/", []string{
			`test.yaml:7:13: daemon.spool.folder: the spool is inside the repository a, where its databases would ` +
				`lie unencrypted, in line 2`}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(t, placed(c.repositories, c.clusters, c.spool), nil)
			var problems *config.Error
			if err != nil && !errors.As(err, &problems) {
				t.Fatal(err)
			}
			if problems == nil {
				problems = &config.Error{}
			}
			if diff := cmp.Diff(c.want, first(problems.Problems), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestPlaces_Links: a link does not hide that a place is inside another.
func TestPlaces_Links(t *testing.T) {
	dir := t.TempDir()
	for _, folder := range []string{"repository/inner", "spool"} {
		if err := os.MkdirAll(filepath.Join(dir, folder), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(dir, "repository"), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "backupd.yaml")
	text := placed(fmt.Sprintf("  a: {url: 'file://%[1]s/repository'}\n  c: {url: 'file://%[1]s/link/new'}\n", dir), "x",
		dir+"/link/inner")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	conf, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		path + `:3:12: repositories.c.url: the repository is inside a, which would take its objects for its own`,
		path + `:8:13: daemon.spool.folder: the spool is inside the repository a, where its databases would lie ` +
			`unencrypted`,
	}
	if diff := cmp.Diff(want, first(conf.CheckFiles())); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
