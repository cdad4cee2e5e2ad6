package config_test

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestPolicies(t *testing.T) {
	conf, err := parse(t, `
repositories: {a: {url: 's3://bucket-a/x'}, b: {url: 's3://bucket-b'}, c: {url: 'file:///backups'}}
clusters:
- {name: p, endpoints: ['127.0.0.1:1'], repository: a, snapshot: {schedule: '@daily'}, retention: {keep-daily: 3}}
- {name: q, endpoints: ['127.0.0.1:1'], repository: b, snapshot: {schedule: '@daily'}}
`, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := conf.Policies()
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[0].Repository != "a" || got[1].Repository != "b" {
		t.Fatalf("got %v", got)
	}
	for i, want := range []struct {
		arn    string
		delete bool
	}{{"arn:aws:s3:::bucket-a/x/*", true}, {"arn:aws:s3:::bucket-b/*", false}} {
		text := string(got[i].Policy)
		if !json.Valid(got[i].Policy) || !strings.Contains(text, want.arn) ||
			strings.Contains(text, "s3:DeleteObject") != want.delete {
			t.Errorf("policy of %s: %s", got[i].Repository, text)
		}
	}
}
