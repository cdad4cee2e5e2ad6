package main

import (
	"slices"
	"testing"
)

func TestListenURLs(t *testing.T) {
	for _, c := range []struct{ advertised, want []string }{
		{[]string{"https://10.0.0.1:2380"}, []string{"https://10.0.0.1:2380"}},
		{[]string{"https://[fd00::1]:2380"}, []string{"https://[fd00::1]:2380"}},
		{[]string{"http://localhost:2380"}, []string{"http://localhost:2380"}},
		{[]string{"unix://m1:2380"}, []string{"unix://m1:2380"}},
		{[]string{"https://m1.etcd.svc:2380"}, []string{"https://0.0.0.0:2380"}},
		{[]string{"https://m1:2380", "https://m1.example:2380", "https://m1:7001"},
			[]string{"https://0.0.0.0:2380", "https://0.0.0.0:7001"}},
	} {
		if got := listenURLs(c.advertised); !slices.Equal(got, c.want) {
			t.Errorf("known by %v it listens on %v, want %v", c.advertised, got, c.want)
		}
	}
}

func TestEtcdToStart(t *testing.T) {
	for version, want := range map[string]string{
		"3.6.16": "etcd 3.6 (the data is of 3.6.16)", "3.7.0-rc.1": "etcd 3.7 (the data is of 3.7.0-rc.1)",
		"3.5": "etcd 3.5", "": "it",
	} {
		if got := etcdToStart(version); got != want {
			t.Errorf("%q: %q, want %q", version, got, want)
		}
	}
}
