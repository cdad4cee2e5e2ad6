package duty_test

import (
	"net/http"
	"testing"

	"github.com/etcd-backupd/backupd/internal/companion"
	"github.com/etcd-backupd/backupd/internal/duty"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestSlot_Secrets: a Secret that changes makes a snapshot although the cluster has not changed and
// each run has another host, as the pods of a CronJob do. An API server that is away fails the run,
// costs no snapshot, and makes no further one in each slot.
func TestSlot_Secrets(t *testing.T) {
	at := newPlace(t)
	at.own(testserver.Versions(t)[0])
	p := at.process()
	kube := testserver.StartFakeKube(t)
	kube.Set("prod/certs", map[string]string{"tls.key": "OLD"})
	hosts := 0
	on := func() {
		hosts++
		p.backup.Companions = companion.Files{
			Secrets: []string{"prod/certs"}, Kubeconfig: kube.Kubeconfig, Host: "backupd-" + string(rune('a'+hosts)),
		}
	}
	on()
	if m := p.taken(); m.FilesKey() == "" {
		t.Error("the Secret is not stored")
	}
	on()
	wants(t, p.slot(), duty.Skipped, "as in the newest verified snapshot")
	nextSecond(t)
	on()
	kube.Set("prod/certs", map[string]string{"tls.key": "NEW"})
	p.taken()
	on()
	wants(t, p.slot(), duty.Skipped, "as in the newest verified snapshot")

	nextSecond(t)
	on()
	kube.Answer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	wants(t, p.slot(), duty.Incomplete, "is stored, but without the Secret prod/certs: unreachable: the API server at "+
		kube.URL+" answers 503")
	for range 2 {
		on()
		wants(t, p.slot(), duty.Failed, "is stored, but without the Secret prod/certs")
	}
	nextSecond(t)
	on()
	kube.Answer(nil)
	if m := p.taken(); m.FilesKey() == "" {
		t.Error("the API server is back, and the Secret not stored")
	}
	on()
	wants(t, p.slot(), duty.Skipped, "as in the newest verified snapshot")
}
