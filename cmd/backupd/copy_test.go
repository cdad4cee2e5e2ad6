package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/copies"
	"github.com/etcd-backupd/backupd/internal/disk"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/file"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// storeOne stores a snapshot that was never taken, in a new repository.
func storeOne(t *testing.T, s storage.Store) *backup.Manifest {
	t.Helper()
	if _, err := repository.Create(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	data, at := []byte("the data"), time.Now().Add(-time.Hour).UTC().Truncate(time.Second)
	blob := backup.Blob{Bytes: int64(len(data)), SHA256: sha256.Sum256(data)}
	m := &backup.Manifest{
		Format: backup.ManifestFormat, Repository: "where-it-was-first-stored",
		ID: backup.NewDataName(at).WithRevision(1), Timeline: "t1-aaaaaa", FinishedAt: at, Stored: blob,
		Capture: backup.Capture{Cluster: "prod", StartedAt: at, Members: []backup.Member{{ID: 1}}, Revision: 1, Plain: blob},
	}
	raw, err := m.Marshal()
	for key, content := range map[string][]byte{m.DataKey(): data, m.Key(): raw} {
		err = errors.Join(err, s.Create(t.Context(), key, bytes.NewReader(content)))
	}
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// noReserve is a store in a folder, however full its file system is.
func noReserve(folder string) storage.Store {
	return file.NewWithReserve(folder, disk.RepositoryReserve{Reserve: disk.ReserveOf(0)})
}

// TestCopy_TwoBuckets: each place has an endpoint, a CA and credentials of its own, and those
// of one never count for the other.
func TestCopy_TwoBuckets(t *testing.T) {
	near, far := testserver.StartS3(t), testserver.StartS3TLS(t)
	dir := t.TempDir()
	folder := filepath.Join(dir, "first")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	m := storeOne(t, noReserve(folder))
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_CONFIG_FILE", os.DevNull)
	credentials := func(name, key, secret string) string {
		path := filepath.Join(dir, name)
		text := fmt.Sprintf("[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n", key, secret)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good, bad := credentials("good", near.AccessKey, near.SecretKey), credentials("bad", near.AccessKey, "another")
	flags := func(side string, s *testserver.S3, file string) []string {
		out := []string{"--" + side + "s3-endpoint", s.Endpoint, "--" + side + "s3-region", s.Region,
			"--" + side + "s3-credentials-file", file}
		if s.CAFile != "" {
			out = append(out, "--"+side+"s3-ca-file", s.CAFile)
		}
		return out
	}
	run := func(want int, args ...string) string {
		t.Helper()
		code, stdout, stderr := backupd(args...)
		if code != want {
			t.Fatalf("%v: exit code %d\n%s%s", args, code, stdout, stderr)
		}
		return stdout + stderr
	}
	for _, s := range []*testserver.S3{near, far} {
		run(exitOK, append([]string{"init", "--repo", s.URL("p")}, flags("", s, good)...)...)
	}
	first := []string{"copy", "--from", "file://" + folder, "--to", near.URL("p")}
	run(exitOK, append(first, flags("to-", near, good)...)...)
	between := func(from, to string) []string {
		out := []string{"copy", "--from", near.URL("p"), "--to", far.URL("p")}
		return append(append(out, flags("from-", near, from)...), flags("to-", far, to)...)
	}
	run(exitFailed, between(bad, good)...)
	run(exitFailed, between(good, bad)...)
	if _, err := os.Stat(filepath.Join(far.Dir(), "p", m.Key())); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if out := run(exitOK, between(good, good)...); !strings.Contains(out, "copied 1 of 1 missing snapshot, 8 B") {
		t.Errorf("got %s", out)
	}
	for _, key := range []string{m.Key(), m.DataKey()} {
		want, err := os.ReadFile(filepath.Join(folder, key))
		got, gerr := os.ReadFile(filepath.Join(far.Dir(), "p", key))
		if err := errors.Join(err, gerr); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %v", key, err)
		}
	}
}

// TestCopy_Unmarked: a dry run refuses what the run itself would: a destination without a
// marker.
func TestCopy_Unmarked(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"from", "to"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	storeOne(t, noReserve(from))
	storeOne(t, noReserve(to))
	if err := os.Remove(filepath.Join(to, backup.MarkerKey)); err != nil {
		t.Fatal(err)
	}
	for _, more := range []string{"--dry-run", "--log-format=text"} {
		code, stdout, stderr := backupd("copy", "--from", "file://"+from, "--to", "file://"+to, more)
		if code != exitRefused || stdout != "" || !strings.Contains(stderr, "the marker of the repository is gone") {
			t.Errorf("%s: exit code %d\n%s%s", more, code, stdout, stderr)
		}
		if strings.Contains(stderr, "backupd init") || !strings.Contains(stderr, "put back backupd.json from a copy of") {
			t.Errorf("the marker of the first repository must not be made here: %s", stderr)
		}
	}
	if err := os.WriteFile(filepath.Join(to, backup.MarkerKey), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, _, stderr := backupd("copy", "--from", "file://"+from, "--to", "file://"+to)
	if code != exitIntegrity || strings.Contains(stderr, "backupd init") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}

// TestCopy_UnmarkedByName: a place of copies that has lost its marker does not get that of the
// source, also if somebody names it.
func TestCopy_UnmarkedByName(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	for _, folder := range []string{from, to} {
		if err := os.Mkdir(folder, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	s := noReserve(to)
	m := storeOne(t, s)
	r, err := repository.Create(t.Context(), noReserve(from))
	if err == nil {
		err = os.Remove(filepath.Join(to, backup.MarkerKey))
	}
	m.Repository = r.ID()
	raw, merr := m.Marshal()
	if err := errors.Join(err, merr, os.WriteFile(filepath.Join(to, m.Key()), raw, 0o600)); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := backupd("copy", "--from", "file://"+from, "--to", "file://"+to, "--to-repo-id", r.ID())
	if code != exitRefused || !strings.Contains(stderr, "are one repository") {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
	if _, err := os.Stat(filepath.Join(to, backup.MarkerKey)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

// TestCopy_FlagsOfPlace: a hint names flags that the command has.
func TestCopy_FlagsOfPlace(t *testing.T) {
	for _, side := range []string{"from", "to"} {
		o := map[string]string{"from": "file://" + t.TempDir(), "to": "file://" + t.TempDir()}
		if _, err := repository.Create(t.Context(), noReserve(strings.TrimPrefix(o["from"], "file://"))); err != nil {
			t.Fatal(err)
		}
		o[side] = "s3://key:secret@bucket/p"
		code, _, stderr := backupd("copy", "--from", o["from"], "--to", o["to"])
		if code != exitUsage || !strings.Contains(stderr, "by --"+side+"-s3-credentials-file FILE") {
			t.Errorf("exit code %d: %s", code, stderr)
		}
		o[side] = "s3://bucket/p?region=x"
		_, _, stderr = backupd("copy", "--from", o["from"], "--to", o["to"])
		if strings.Contains(stderr, " --s3-") || strings.Count(stderr, "--"+side+"-s3-") != 3 {
			t.Errorf("got %s", stderr)
		}
	}
	o := copyPlace{side: "to"}
	absent := explainAbsent(&repository.AbsentError{Known: "a", Found: "b"}, "--repo file:///far")
	if got := hint(o.ownFlags(absent)); !strings.Contains(got, "correct --to-repo-id") {
		t.Errorf("got %s", got)
	}
	several := backup.WithHint(errors.New("of 2"), "backupd init --repo s3://b --s3-region x --repo-id a\n"+
		"a command that only reads takes --repo-id, too")
	if got := hint((&copyPlace{side: "from"}).ownFlags(several)); got != "backupd init --repo s3://b --s3-region x "+
		"--repo-id a\na command that only reads takes --from-repo-id, too" {
		t.Errorf("got %s", got)
	}
}

// TestCopyError: each reason why something is not at the destination has its exit code, and
// the worst of them counts.
func TestCopyError(t *testing.T) {
	out := func(causes ...copies.Cause) copied {
		c := copied{plan: &copies.Plan{Cluster: "prod"}, result: &copies.Result{}}
		for _, cause := range causes {
			c.result.LeftOut = append(c.result.LeftOut, copies.LeftOut{Cause: cause})
		}
		return c
	}
	failed := copied{plan: &copies.Plan{Cluster: "lab"}, err: errors.New("no route to host")}
	refused := copied{plan: &copies.Plan{Cluster: "lab"}, err: &backup.RefusedError{Reason: "another cluster"}}
	disputed := copied{plan: &copies.Plan{Disputed: []copies.Disputed{{}}}, result: &copies.Result{}}
	for name, tt := range map[string]struct {
		all  []copied
		want int
	}{
		"Nothing":        {[]copied{out()}, exitOK},
		"Removed":        {[]copied{out(copies.Removed)}, exitOK},
		"ByState":        {[]copied{out(copies.ByState)}, exitPartial},
		"Waiting":        {[]copied{out(copies.Waiting)}, exitPartial},
		"Withheld":       {[]copied{out(copies.Withheld)}, exitPartial},
		"Disputed":       {[]copied{disputed}, exitPartial},
		"Damaged":        {[]copied{out(copies.ByState, copies.Damaged)}, exitIntegrity},
		"Differs":        {[]copied{out(copies.Differs)}, exitIntegrity},
		"Failed":         {[]copied{failed}, exitFailed},
		"Refused":        {[]copied{refused}, exitRefused},
		"OneFailed":      {[]copied{failed, out()}, exitPartial},
		"OneRefused":     {[]copied{refused, out()}, exitPartial},
		"FailedDamaged":  {[]copied{failed, out(copies.Damaged)}, exitIntegrity},
		"RefusedDamaged": {[]copied{refused, out(copies.Damaged)}, exitIntegrity},
	} {
		if err := copyError(tt.all); exitCode(err) != tt.want {
			t.Errorf("%s: exit code %d, %v", name, exitCode(err), err)
		}
	}
}

func TestSinceFlag(t *testing.T) {
	for text, want := range map[string]string{
		"2026-11-20": "2026-11-20T00:00:00Z", "2026-11-20T10:15:00+01:00": "2026-11-20T09:15:00Z",
		"": "", "-1h": "", "0s": "", "yesterday": "", "20.11.2026": "",
	} {
		var s sinceFlag
		err := s.Set(text)
		if (err == nil) != (want != "") || err == nil && s.at.UTC().Format(time.RFC3339) != want {
			t.Errorf("%q: %v, %v", text, s.at, err)
		}
	}
	var s sinceFlag
	if err := s.Set("168h"); err != nil || time.Since(s.at) < 168*time.Hour || time.Since(s.at) > 169*time.Hour {
		t.Errorf("got %v, %v", s.at, err)
	}
}
