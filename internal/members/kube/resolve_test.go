package kube_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/members/settings"
)

// TestResolve_Kubeadm: the data of a static pod is at the hostPath, and its list of members
// is as old as its host.
func TestResolve_Kubeadm(t *testing.T) {
	starts, err := read(file(t, "kubeadm.txtar"))
	if err != nil {
		t.Fatal(err)
	}
	h, err := settings.Resolve(starts[0], settings.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if h.Name.Text != "cp2" || h.DataDir.Text != "/data/k8s/etcd" || h.WALDir.Text != "" ||
		!slices.Equal(h.PeerURLs, []string{"https://[fd00:10::12]:2380"}) || h.PeerURLsAt.Line != 20 ||
		members.Names(h.InitialCluster) != "cp1, cp2" || h.Token.Text != "" {
		t.Errorf("got %+v", h)
	}
	away := strings.Replace(file(t, "kubeadm.txtar"), "mountPath: /var/lib/etcd\n", "mountPath: /var/lib/etcx\n", 1)
	if starts, err = read(away); err != nil {
		t.Fatal(err)
	}
	if _, err := settings.Resolve(starts[0], settings.Options{}); err == nil ||
		!strings.HasPrefix(err.Error(), "f:18: ") {
		t.Errorf("data that no mount holds: got %v", err)
	}
}

// TestResolve_Set: the members of a set are those of its ordinals. Where a claim is on a
// host nobody knows.
func TestResolve_Set(t *testing.T) {
	for _, size := range []int{3, 5} {
		for name, text := range map[string]string{"set": set, "script": file(t, "script.txtar")} {
			text = strings.NewReplacer("replicas: 3", fmt.Sprintf("replicas: %d", size), "replicas: 2",
				fmt.Sprintf("replicas: %d", size)).Replace(text)
			starts, err := read(text)
			if err != nil || len(starts) != size {
				t.Fatal(name, starts, err)
			}
			for i, s := range starts {
				_, err := settings.Resolve(s, settings.Options{})
				claim := fmt.Sprintf("data-etcd-%d", i)
				if name == "script" {
					claim = fmt.Sprintf("datadir-etcd-%d", i)
				}
				if err == nil || !strings.Contains(err.Error(), claim) || !strings.HasPrefix(err.Error(), "f:") {
					t.Errorf("%s: the place of %s: got %v", name, claim, err)
				}
				h, err := settings.Resolve(s, settings.Options{DataDir: "/restored"})
				if err != nil {
					t.Fatal(err)
				}
				want := fmt.Sprintf("etcd-%d", i)
				if h.Name.Text != want || h.DataDir.Text != "/restored" || h.Replicas != size ||
					!slices.Equal(h.PeerURLs, []string{"http://" + want + ".etcd:2380"}) {
					t.Errorf("%s: got %+v", name, h)
				}
				// The list of the script has the initial size: it adds the others later.
				if name == "script" && (h.InitialCluster == nil) != (i >= 3) {
					t.Errorf("%s: the list is %v", want, h.InitialCluster)
				}
			}
		}
	}
}
