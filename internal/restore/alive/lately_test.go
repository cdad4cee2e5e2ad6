package alive_test

import (
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/restore/alive"
)

// TestPart_Unstarted: a member that has not taken part itself knows nothing but the plan, and
// is no witness that another one has not.
func TestPart_Unstarted(t *testing.T) {
	m1 := backup.Member{ID: 1, Name: "m1", PeerURLs: []string{"http://10.0.0.1:2380"}}
	m3 := backup.Member{ID: 3, Name: "m3", PeerURLs: []string{"http://10.0.0.3:2380"}}
	found := alive.Found{New: []alive.Answer{{URL: m3.PeerURLs[0], Members: []backup.Member{m1, m3}}}}
	if part := found.Part(m1); part != alive.Unknown {
		t.Errorf("by one that has just begun: part %d", part)
	}
	started := m3
	started.ClientURLs = []string{"http://10.0.0.3:2379"}
	found.New[0].Members = []backup.Member{m1, started}
	if part := found.Part(m1); part != alive.Never {
		t.Errorf("by one that has taken part: part %d", part)
	}
}
