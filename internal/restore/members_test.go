package restore_test

import (
	"reflect"
	"strings"
	"testing"

	"go.etcd.io/etcd/client/pkg/v3/types"

	"github.com/etcd-backupd/backupd/internal/restore"
)

func TestParseMembers(t *testing.T) {
	for in, want := range map[string]string{
		"default=http://localhost:2380":                 "default=http://localhost:2380",
		"b=http://10.0.0.2:2380,a=http://10.0.0.1:2380": "a=http://10.0.0.1:2380,b=http://10.0.0.2:2380",
		"a=https://[::1]:2380,a=http://10.0.0.1:2380":   "a=http://10.0.0.1:2380,a=https://[::1]:2380",
		",a=http://10.0.0.1:2380,,":                     "a=http://10.0.0.1:2380",
		"a= http://10.0.0.1:2380 ":                      "a=http://10.0.0.1:2380",
		"a=unix://m1:0":                                 "a=unix://m1:0",
		"":                                              "",
		",":                                             "",
		"a":                                             "",
		"a=":                                            "",
		"=http://10.0.0.1:2380":                         "",
		"a=10.0.0.1:2380":                               "",
		"a=http://10.0.0.1":                             "",
		"a=http://10.0.0.1:2380/path":                   "",
		"a=ftp://10.0.0.1:2380":                         "",
		"a=http://10.0.0.1:2380,b":                      "",
		"a=http://10.0.0.1:2380;b=http://10.0.0.2:2380":                    "",
		"a=http://10.0.0.1:2380,b=http://10.0.0.1:2380":                    "",
		"a=http://10.0.0.1:2380,a=http://10.0.0.1:2380":                    "",
		"a=http://10.0.0.1:2380,b=http://10.0.0.2:2380,c=http://[::1:2380": "",
	} {
		members, err := restore.ParseMembers(in)
		if got := restore.FormatMembers(members); got != want || (err != nil) != (want == "") {
			t.Errorf("%q parses as %q, %v, want %q", in, got, err, want)
		}
		if err != nil && !strings.Contains(err.Error(), "--initial-cluster") {
			t.Errorf("%q: error %v does not name the flag", in, err)
		}
	}
}

// FuzzParseMembers compares our parser with etcd's, and with itself.
func FuzzParseMembers(f *testing.F) {
	for _, seed := range []string{
		"", "a=http://1:1", "b=http://10.0.0.2:2380,a=http://10.0.0.1:2380",
		"a=https://[::1]:2380,a=http://10.0.0.1:2380",
		"a=unix://m1:0,b=unixs://m2:0", "a=http://1:1?x=y,b=http://2:2#f", "=,=,", "a==http://1:1", "a=http://u:p@h:1",
		"a=http://[fe80::1%25eth0]:1",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		members, err := restore.ParseMembers(in)
		if err != nil {
			return
		}
		formatted := restore.FormatMembers(members)
		again, err := restore.ParseMembers(formatted)
		if err != nil || !reflect.DeepEqual(again, members) {
			t.Fatalf("%q gives %+v, written as %q it gives %+v, %v", in, members, formatted, again, err)
		}
		theirs, err := types.NewURLsMap(formatted)
		if err != nil || len(theirs) != len(members) {
			t.Fatalf("%q: etcd reads %v, %v", formatted, theirs, err)
		}
		for _, m := range members {
			if m.Name == "" || !reflect.DeepEqual(theirs[m.Name].StringSlice(), m.PeerURLs) {
				t.Fatalf("%q: member %+v, etcd reads %v", formatted, m, theirs)
			}
		}
	})
}
