package unit_test

import (
	"strings"
	"testing"
)

// TestRead_Absent: a file of variables that is not there may come with the start, and what it may
// set is not known then.
func TestRead_Absent(t *testing.T) {
	const all, opt, run = " --name m1 --data-dir /d --wal-dir /w", "EnvironmentFile=-/e", "EnvironmentFile=-/run/e"
	for name, c := range map[string]struct {
		lines []string
		want  string // of the error; empty: it is read, with a note
	}{
		"made":       {[]string{opt, "ExecStartPre=/x/make-env", "ExecStart=/b/etcd"}, "may set ETCD_NAME"},
		"by a shell": {[]string{opt, "ExecStartPre=/bin/sh -c 'echo A=1 >/e'", "ExecStart=/b/etcd"}, "ETCD_NAME"},
		"in /run":    {[]string{run, "ExecStart=/b/etcd --name m1"}, "may set ETCD_DATA_DIR"},
		"the WAL":    {[]string{run, "ExecStart=/b/etcd --name m1 --data-dir /d"}, "may set ETCD_WAL_DIR"},
		"lesser":     {[]string{"Environment=ETCD_NAME=m1", run, "ExecStart=/b/etcd"}, "may set ETCD_NAME"},
		"word":       {[]string{"Environment=N=m1", run, "ExecStart=/b/etcd ${N}" + all}, "may set $N"},
		"words":      {[]string{run, "ExecStart=/b/etcd $OPTS" + all}, "may set $OPTS"},
		"shell": {[]string{"Environment=N=m1", run, "ExecStart=/bin/sh -c 'etcd --name $$N" + all + "'"},
			"may set variables"},
		"flags":       {[]string{run, "ExecStartPre=/x/make-env", "ExecStart=/b/etcd" + all}, ""},
		"a program":   {[]string{opt, "ExecStartPre=/bin/mkdir -p /d", "ExecStart=/b/etcd --name m1"}, ""},
		"not made":    {[]string{opt, "ExecStart=/b/etcd --name m1"}, ""},
		"a container": {[]string{opt, "ExecStartPre=-/bin/docker rm -f x", "ExecStart=/b/etcd --name m1"}, ""},
	} {
		m, err := host{file: service(c.lines...)}.resolve(file)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
		if err == nil && (len(m.Notes) == 0 || !strings.Contains(m.Notes[0].Text, "not known here")) {
			t.Errorf("%s: notes %v", name, m.Notes)
		}
	}
}
