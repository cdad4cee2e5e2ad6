package members_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"go.etcd.io/etcd/client/pkg/v3/types"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/members"
)

func TestParse(t *testing.T) {
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
		parsed, err := members.Parse(in)
		if got := members.Format(parsed); got != want || (err != nil) != (want == "") {
			t.Errorf("%q parses as %q, %v, want %q", in, got, err, want)
		}
		if err != nil && !strings.Contains(err.Error(), "--initial-cluster") {
			t.Errorf("%q: error %v does not name the flag", in, err)
		}
	}
}

// TestParse_OneAddress: two members cannot have one address, however it is spelled.
func TestParse_OneAddress(t *testing.T) {
	_, err := members.Parse("m1=http://[::1]:1,m2=http://[0:0:0:0:0:0:0:1]:1")
	if err == nil || !strings.Contains(err.Error(), "is given for both") {
		t.Errorf("got %v", err)
	}
}

func TestCheckLoopback(t *testing.T) {
	for list, refused := range map[string]bool{
		"a=http://localhost:2380":                                               false,
		"a=http://localhost:2380,b=http://127.0.0.1:22380":                      false, // on one host
		"a=http://10.0.0.1:2380,b=http://10.0.0.2:2380":                         false,
		"a=http://a.example:2380,b=http://localhost.example:2380":               false,
		"a=http://localhost:2380,b=http://10.0.0.2:2380":                        true,
		"a=http://10.0.0.1:2380,b=http://127.1.2.3:2380":                        true,
		"a=http://10.0.0.1:2380,b=http://[::1]:2380,c=http://c:2380":            true,
		"a=http://10.0.0.1:2380,a=http://127.0.0.1:2380,b=http://10.0.0.2:2380": true,
		"a=unix://m1:2380,b=http://localhost:2380":                              true,
		"a=http://[::ffff:127.0.0.1]:2380,b=http://10.0.0.2:2380":               true,
	} {
		parsed, err := members.Parse(list)
		if err != nil {
			t.Fatal(err)
		}
		err = members.CheckLoopback(parsed)
		var refusal *backup.RefusedError
		if errors.As(err, &refusal) != refused || refused && refusal.Override != "--allow-localhost" {
			t.Errorf("%s: %v, want a refusal: %v", list, err, refused)
		}
	}
}

// FuzzParse compares our parser with etcd's, and with itself.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"", "a=http://1:1", "b=http://10.0.0.2:2380,a=http://10.0.0.1:2380",
		"a=https://[::1]:2380,a=http://10.0.0.1:2380",
		"a=unix://m1:0,b=unixs://m2:0", "a=http://1:1?x=y,b=http://2:2#f", "=,=,", "a==http://1:1", "a=http://u:p@h:1",
		"a=http://[fe80::1%25eth0]:1",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		parsed, err := members.Parse(in)
		if err != nil {
			return
		}
		formatted := members.Format(parsed)
		again, err := members.Parse(formatted)
		if err != nil || !reflect.DeepEqual(again, parsed) {
			t.Fatalf("%q gives %+v, written as %q it gives %+v, %v", in, parsed, formatted, again, err)
		}
		theirs, err := types.NewURLsMap(formatted)
		if err != nil || len(theirs) != len(parsed) {
			t.Fatalf("%q: etcd reads %v, %v", formatted, theirs, err)
		}
		for _, m := range parsed {
			if m.Name == "" || !reflect.DeepEqual(theirs[m.Name].StringSlice(), m.PeerURLs) {
				t.Fatalf("%q: member %+v, etcd reads %v", formatted, m, theirs)
			}
		}
	})
}
