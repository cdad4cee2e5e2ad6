package duty_test

import (
	"os"
	"testing"

	"github.com/etcd-backupd/backupd/internal/companion"
	"github.com/etcd-backupd/backupd/internal/duty"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestSlot_Companions: a companion file that changes makes a snapshot although the cluster has
// not changed. One that cannot be read fails the slot, each time, and costs no snapshot.
func TestSlot_Companions(t *testing.T) {
	at := newPlace(t)
	at.own(testserver.Versions(t)[0])
	p := at.process()
	p.taken()
	wants(t, p.slot(), duty.Skipped, "as in the newest verified snapshot")

	path := t.TempDir() + "/ca.crt"
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("OLD")
	p.backup.Companions = companion.Files{Paths: []string{path}, Host: "h1"}
	nextSecond(t)
	if m := p.taken(); m.FilesKey() == "" {
		t.Error("the files that the configuration names now are not stored")
	}
	wants(t, p.slot(), duty.Skipped, "as in the newest verified snapshot")
	nextSecond(t)
	write("NEW")
	p.taken()

	// The files of another host are not compared with those of this one.
	p.backup.Companions.Host = "h2"
	wants(t, p.slot(), duty.Skipped, "as in the newest verified snapshot")
	p.backup.Companions.Host = "h1"

	nextSecond(t)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	wants(t, p.slot(), duty.Incomplete, "is stored, but without the companion file "+path+": no such file")
	for range 2 {
		wants(t, p.slot(), duty.Failed, "is stored, but without the companion file")
	}
	nextSecond(t)
	write("NEW")
	if m := p.taken(); m.FilesKey() == "" {
		t.Error("the file is back, and not stored")
	}
	wants(t, p.slot(), duty.Skipped, "as in the newest verified snapshot")
}
