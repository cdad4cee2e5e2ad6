package secret_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/secret"
)

func TestShow(t *testing.T) {
	for text, want := range map[string]string{
		"http://root:SECRET@a:1":                                        "http://***@a:1",
		"HTTPS://root:SECRET@a:1/x":                                     "HTTPS://***@a:1/x",
		"http://u:SEC/RET@a:1":                                          "http://***@a:1",
		"http://u:SEC@RET@a:1":                                          "http://***@a:1",
		"http://u:SEC?RET#x@a:1":                                        "http://***@a:1",
		"http://root:SECRET":                                            "http://root:***",
		"https://SECRET@a:1":                                            "https://***@a:1",
		"restore --initial-cluster=m=http://p:SECRET@a:1":               "restore --initial-cluster=m=http://***@a:1",
		"root:SECRET@a:1":                                               "***@a:1",
		"s3://AK:SECRET@bucket/p":                                       "s3://***@bucket/p",
		"s3://AK:SEC/RET@bucket/p":                                      "s3://***@bucket/p",
		"s3://bucket?secret=SECRET":                                     "s3://bucket?***",
		"s3://AK:SECRET":                                                "s3://AK:***",
		"unix://u:SECRET@/run/etcd.sock":                                "unix://***@/run/etcd.sock",
		"file://u:SECRET@/backups":                                      "file://***@/backups",
		"https://hooks.example/a?token=SECRET":                          "https://hooks.example/a?***",
		"http://a:1?token=SECRET":                                       "http://a:1?***",
		"AGE-SECRET-KEY-1SECRET":                                        "***",
		"age-secret-key-pq-1secret":                                     "***",
		"AGE-PLUGIN-YUBIKEY-1SECRET":                                    "***",
		"open AGE-SECRET-KEY-1SECRET: no such":                          "open *** no such",
		"read -----BEGIN EC PRIVATE KEY-----\nSECRET\n-----END":         "read ***",
		"ask http://root:SECRET@a:1: no answer, s3://AK:SECRET@b: none": "ask http://***@a:1: no answer, s3://***@b: none",
		`parse "https://root:SECRET@a:1": no`:                           `parse "https://***@a:1": no`,
	} {
		if got := secret.Show(text); got != want || !secret.Holds(text) {
			t.Errorf("%s: got %s", text, got)
		}
	}
	for _, text := range []string{
		"", "a:1", "http://a:1", "https://[::1]:2379", "http://a", "http://a:", "http://a:1,http://b:2: no answer",
		"s3://bucket/pre@fix", "s3://bucket/a:b@c", "file:///srv/a@b:c", "unix:///run/a@b.sock", "unix://@abstract",
		"/srv/a@b", "key@host.txt", "my key.txt", "reach http://a:1: connection refused", "age1publickey",
		"list '--repo=s3://bucket/a@b'", "list --repo=file:///srv/a@b?c", `get "http://a:1/x": no`, "this costs 1:2 @ 3",
	} {
		if got := secret.Show(text); got != text || secret.Holds(text) {
			t.Errorf("%s: got %s", text, got)
		}
	}
}

func TestInAddress(t *testing.T) {
	for text, want := range map[string]bool{
		"http://u:SE CRET@a:1": true, " http://u:p@a:1 ": true, "http://@a:1": true, "http://u:p": true,
		"s3://a@b": true, "http://a:1": false, "unix://@abstract": false, "s3://a/b@c": false,
		"file:///a@b": false, "http://[::1]:1": false, "": false,
	} {
		if got := secret.InAddress(text); got != want {
			t.Errorf("%q: got %v", text, got)
		}
	}
}

func TestWithout(t *testing.T) {
	got := secret.Without([]string{
		"http://root:SEC@RET@a:1", "http://a:1", "https://SECRET@[::1]:1", "unix://@a", "", "http://a:1?SECRET",
		"http://u:SEC/RET@a:1/SECRET", "https://a:1#SECRET", "unixs:///run/a?b#c",
	})
	want := []string{
		"http://a:1", "http://a:1", "https://[::1]:1", "unix://@a", "", "http://a:1", "http://a:1", "https://a:1",
		"unixs:///run/a?b#c",
	}
	if !slices.Equal(got, want) || secret.Without(nil) != nil {
		t.Errorf("got %q", got)
	}
}

func TestText(t *testing.T) {
	v := struct{ T secret.Text }{"SECRET"}
	raw, err := json.Marshal(v)
	all := fmt.Sprintf("%s %v %+v %#v %s", v.T, v, v, v, raw)
	if err != nil || strings.Contains(all, "SECRET") || !strings.Contains(all, secret.Mask) {
		t.Errorf("got %s, %v", all, err)
	}
	if secret.Text("").String() != "" {
		t.Error("an empty text shows as something")
	}
}
