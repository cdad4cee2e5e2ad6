package duty_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/health"
)

// TestUnencrypted: a configuration has lost its recipients. Backups go on, in plain text, and
// that is seen: before the first of them, and for a week after the last encrypted one.
func TestUnencrypted(t *testing.T) {
	const text = "new snapshots are not encrypted, although snapshot "
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	recipients, err := codec.ParseRecipients([]string{id.Recipient().String()}, nil)
	if err != nil {
		t.Fatal(err)
	}
	p := newPlace(t).process()
	p.place.codec.Recipients = recipients
	secret := p.taken()
	p.healthy(health.OK, "")

	p.place.codec.Recipients, p.backup.Plain = codec.Recipients{}, true
	p.healthy(health.Warning, text+string(secret.ID))
	var log bytes.Buffer
	p.Log = slog.New(slog.NewTextHandler(&log, nil))
	if m := p.changed(); m.Encoding.Encryption != "" {
		t.Errorf("got %+v", m.Encoding)
	}
	if !strings.Contains(log.String(), "level=WARN msg=\""+text+string(secret.ID)) {
		t.Errorf("logged:\n%s", log.String())
	}
	p.healthy(health.Warning, text+string(secret.ID))
	p.backup.Plain = false // as it should be again
	p.healthy(health.OK, "")

	for days, want := range map[time.Duration]health.Level{6: health.Warning, 8: health.OK} {
		h := health.Unencrypted("prod", p.Known.Now().Overview, p.now().Add(days*24*time.Hour))
		if h.Level != want {
			t.Errorf("after %d days: got %+v", days, h)
		}
	}
}
