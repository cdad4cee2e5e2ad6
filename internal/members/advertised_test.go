package members_test

import (
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/members"
)

func TestCheckAdvertised(t *testing.T) {
	for _, tt := range []struct {
		cluster, advertised string
		same                bool
	}{
		{"http://a:1", "http://a:1", true},
		{"http://a:1", " http://a:1", true},
		{"http://a:1,http://b:1", "http://b:1, http://a:1", true},
		{"http://a:1", "HTTP://A:1", true},
		{"http://[::1]:1", "http://[0:0:0:0:0:0:0:1]:1", true},
		{"http://[2001:DB8::A]:1", "http://[2001:db8:0::a]:1", true},
		{"http://10.0.0.1:1", "http://[::ffff:10.0.0.1]:1", true},
		{"http://[fe80::1%25eth0]:1", "http://[fe80:0::1%25eth0]:1", true},
		{"unix://a:1", "unix://a:1", true},
		{"http://a:1", "", true},
		{"http://a:1", "http://a:2", false},
		{"http://a:1", "https://a:1", false},
		{"http://a:1", "http://a:1,http://b:1", false},
		{"http://[::1]:1", "http://[::2]:1", false},
		{"http://localhost:1", "http://127.0.0.1:1", false},
		{"http://a:1", "a:1", false},
		{"http://a:1", "http://a", false},
	} {
		var advertised []string
		if tt.advertised != "" {
			advertised = strings.Split(tt.advertised, ",")
		}
		m := backup.Member{Name: "m", PeerURLs: strings.Split(tt.cluster, ",")}
		if err := members.CheckAdvertised(m, advertised); (err == nil) != tt.same {
			t.Errorf("%s, %q: got %v", tt.cluster, tt.advertised, err)
		}
	}
}
