//go:build long

package recovery_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

const walUnit = `[Service]
User=USER
ExecStart=@/usr/bin/etcd --name m1 --data-dir @/data/etcd --wal-dir @/fast/wal \
  --listen-peer-urls http://ADDR:2380 --initial-advertise-peer-urls http://ADDR:2380 \
  --listen-client-urls http://ADDR:2379 --advertise-client-urls http://ADDR:2379 \
  --initial-cluster m1=http://ADDR:2380 --initial-cluster-token etcd-cluster
`

// TestLongFive_WALForgotten: without its --wal-dir a restored member comes up with the old
// cluster's id, and the check of the cluster finds it. With the unit it is taken.
func TestLongFive_WALForgotten(t *testing.T) {
	s := newSite(t, "3.7")
	s.install(t, 1, "usr/bin/etcd")
	s.folder(t, 1, "data")
	s.folder(t, 1, "fast")
	unit := s.write(t, 1, "etc/systemd/system/etcd.service",
		strings.NewReplacer("USER", s.user, "ADDR", s.addr(1)).Replace(walUnit))
	endpoint := "http://" + s.addr(1) + ":2379"
	p := s.systemctlStart(t, unit)
	s.ready(t, "", []*process{p}, endpoint)
	s.fill(t, s.client(t, "", endpoint))
	before := s.read(t, "", endpoint)
	s.backup(t, "--endpoints="+endpoint)
	end := func() {
		p.kill()
		for _, dir := range []string{"data/etcd", "fast/wal"} {
			removeAll(t, s.path(1, dir))
		}
	}
	end()
	plan := filepath.Join(s.root, "plan.yaml")
	s.want(t, 0, append([]string{"plan", "latest", "--output=" + plan}, s.repo...))
	chown := fmt.Sprintf("--chown=%d:%d", credential(t, s.user).uid, credential(t, s.user).gid)
	s.want(t, 0, []string{"restore", "--plan", plan, "--name=m1", "--data-dir=" + s.path(1, "data/etcd"), chown})
	p = s.systemctlStart(t, unit)
	s.ready(t, "", []*process{p}, endpoint)
	a := s.run(t, nil, []string{s.program, "verify-cluster", "--plan", plan, "--endpoints=" + endpoint})
	if a.code == 0 || !strings.Contains(a.out+a.stderr, "wal") {
		t.Errorf("the cluster is as planned: %d\n%s%s", a.code, a.out, a.stderr)
	}
	end()

	s.want(t, 0, []string{"restore", "--plan", plan, "--from", unit}, "WAL", s.path(1, "fast/wal"))
	owned(t, s.path(1, "data/etcd"), s.user)
	p = s.systemctlStart(t, unit)
	s.ready(t, "", []*process{p}, endpoint)
	same(t, before, s.read(t, "", endpoint), true)
	s.want(t, 0, []string{"verify-cluster", "--plan", plan, "--endpoints=" + endpoint})
}

// A manifest as kubeadm writes it, with another path in the container.
const kubeadmManifest = `apiVersion: v1
kind: Pod
metadata:
  annotations:
    kubeadm.kubernetes.io/etcd.advertise-client-urls: CLIENT
  labels: {component: etcd, tier: control-plane}
  name: etcd
  namespace: kube-system
spec:
  containers:
  - command:
    - etcd
    - --advertise-client-urls=CLIENT
    - --data-dir=/var/lib/etcd-in-the-pod
    - --initial-advertise-peer-urls=PEER
    - --initial-cluster=HISTORY
    - --initial-cluster-state=existing
    - --listen-client-urls=CLIENT
    - --listen-peer-urls=PEER
    - --name=NAME
    - --snapshot-count=10000
    image: registry.k8s.io/etcd:3.6.4-0
    name: etcd
    volumeMounts:
    - mountPath: /var/lib/etcd-in-the-pod
      name: etcd-data
  hostNetwork: true
  volumes:
  - hostPath: {path: @/var/lib/etcd, type: DirectoryOrCreate}
    name: etcd-data
`

// TestLongFive_Kubeadm: the --initial-cluster of each host is what the cluster was when that
// host joined.
func TestLongFive_Kubeadm(t *testing.T) {
	s := newSite(t, "3.6")
	source := testserver.StartCluster(t, testserver.Options{Version: s.version, Size: 3})
	testserver.Fill(t, source.Client(t), testserver.FillOptions{Keys: 50, Seed: 2})
	s.backup(t, "--endpoints="+strings.Join(source.Endpoints(), ","))
	var files, history []string
	var run []testserver.RestoredMember
	for i, m := range source.Members {
		m.Kill()
		history = append(history, m.Name+"="+m.PeerURL)
		files = append(files, s.write(t, i+1, "etc/kubernetes/manifests/etcd.yaml", strings.NewReplacer("CLIENT", m.ClientURL,
			"PEER", m.PeerURL, "NAME", m.Name, "HISTORY", strings.Join(history, ",")).Replace(kubeadmManifest)))
		run = append(run, testserver.RestoredMember{Name: m.Name, DataDir: s.path(i+1, "var/lib/etcd"), PeerURL: m.PeerURL,
			ClientURL: m.ClientURL})
	}
	var joining answer
	for i, m := range source.Members {
		if i == 0 {
			a := s.want(t, 6, s.typedRestore(files[i], ""), files[0]+":16 has "+history[0], "the snapshot has "+
				strings.Join(history, ","), "--members=files")
			joining = s.want(t, 0, a.command(t, "--members=snapshot"), "Restored member "+m.Name+" to "+run[0].DataDir,
				"put the manifest "+files[0]+" back into the folder of the kubelet")
			continue
		}
		a := s.want(t, 0, replaced(joining.command(t, "--name="+m.Name), "from", files[i]),
			"Restored member "+m.Name+" to "+run[i].DataDir)
		owned(t, run[i].DataDir, fmt.Sprint(0))
		_ = a
	}
	restored := testserver.StartRestored(t, s.version, run)
	list, err := restored.Client(t).MemberList(t.Context())
	if err != nil || len(list.Members) != 3 {
		t.Errorf("%v, %v", list, err)
	}

	// All three files together say who they are, and are compared with the snapshot all the same.
	args := append([]string{"plan", "latest"}, s.repo...)
	for _, f := range files {
		args = append(args, "--from", f)
	}
	a := s.want(t, 6, args, files[0]+":16 has", files[1]+":16 has")
	plan := filepath.Join(s.root, "plan.yaml")
	s.want(t, 0, append(a.command(t, "--members=files"), "--output="+plan), "--name="+source.Members[2].Name)
	raw, err := os.ReadFile(plan)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range run {
		if !strings.Contains(string(raw), m.DataDir) {
			t.Errorf("the plan does not know where %s is:\n%s", m.Name, raw)
		}
	}
}
