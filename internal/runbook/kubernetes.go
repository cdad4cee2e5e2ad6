package runbook

import (
	"fmt"
	"path/filepath"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/members"
)

// keysOf are the keys that the API servers need.
func keysOf(k *backup.Kubernetes) []string {
	var out []string
	for _, key := range k.Keys {
		name := fmt.Sprintf("key `%s`", key.Name)
		if key.Name == "" {
			name = "a key whose name is not known"
		}
		out = append(out, fmt.Sprintf("%s of the provider `%s`: %d objects", name, key.Provider, key.Objects))
	}
	return out
}

// stale is what Kubernetes holds that the world has left behind, with the command that shows it.
var stale = []struct{ what, command string }{
	{
		"Nodes: those that joined after the snapshot are not known (`systemctl restart kubelet` there lets them register " +
			"again), and those that were removed are there again (`kubectl delete node NAME`).",
		"kubectl get nodes -o wide",
	},
	{
		"Leases of nodes are as old as the snapshot, until each kubelet has renewed its own: nodes are NotReady for up " +
			"to a minute. A lease that stays old is of a node that is gone.",
		"kubectl get leases -n kube-node-lease",
	},
	{
		"Leases of controllers name leaders of that time: the next one leads when they have expired, in about a minute.",
		"kubectl get leases -A",
	},
	{
		"`/registry/masterleases/` has the addresses of the API servers of that time. They go away with their leases, " +
			"within a minute; one that stays is of an API server that runs. The endpoints of the service `kubernetes` follow.",
		"kubectl get endpointslices -n default -l kubernetes.io/service-name=kubernetes",
	},
	{
		"Events are of that time, and go away within an hour. They are no news.",
		"kubectl get events -A --sort-by=.metadata.creationTimestamp",
	},
	{
		"Pods that were deleted after the snapshot are there again; containers of pods that were made after it are ended " +
			"by the kubelets, and their controllers make new ones. IP addresses that were given since may be given twice: " +
			"restart pods that have one address.",
		"kubectl get pods -A -o wide",
	},
	{
		"Endpoints list pods of that time, until their controllers have seen the present ones.",
		"kubectl get endpointslices -A",
	},
	{
		"Volumes that were made after the snapshot lie in the storage, unknown to Kubernetes; those that were deleted have " +
			"objects, and no data.",
		"kubectl get pv,pvc -A",
	},
	{
		"Secrets, certificates and tokens that were changed since are the old ones again. What was revoked by deleting " +
			"it is valid again.",
		"kubectl get csr",
	},
}

func afterwards(b *book) {
	k := b.plan.Source.Kubernetes
	b.heading(2, "5. Kubernetes")
	if k == nil {
		b.text("There is nothing to do: no API server keeps anything in this cluster.")
		return
	}
	if len(k.Keys) > 0 {
		b.text("Before an API server is started, see that its `--encryption-provider-config` has:")
		b.list(keysOf(k)...)
	}
	if k.PlainSecrets > 0 {
		b.text("%d Secrets are not encrypted in this snapshot.", k.PlainSecrets)
	}
	startAPIServers(b)
	if b.plan.Request.BumpRevision > 0 {
		b.text("The revision was bumped: every watch of before ends with an error, and is begun anew with the restored " +
			"data. An API server that was not stopped, controllers and kubelets need no restart for it.")
	} else {
		b.text("**The revision was not bumped:** an API server that was not stopped answers from memory what etcd has not, " +
			"without an error, and controllers and kubelets wait for revisions that come much later. Restart every API " +
			"server, controller manager, scheduler and kubelet, and every operator that watches:")
		dir, aside := b.manifests()
		b.text("On each node, and, for pods that kubeadm has made, on each host of the control plane:")
		b.commands("systemctl restart kubelet")
		b.commands(
			moveAway(dir, aside, "kube-controller-manager.yaml", false), moveAway(dir, aside, "kube-scheduler.yaml", false),
			closed("sport = :10257 or sport = :10259"),
			q("mv", filepath.Join(aside, "kube-controller-manager.yaml"), filepath.Join(aside, "kube-scheduler.yaml"), dir+"/"),
		)
	}
	b.text("What Kubernetes holds now is of the time of the snapshot. Compare it with the world:")
	var items, commands []string
	for _, s := range stale {
		items, commands = append(items, s.what), append(commands, s.command)
	}
	b.list(items...)
	b.commands(append(commands, "etcdctl get --prefix --keys-only /registry/masterleases/ "+b.connection())...)
}

func startAPIServers(b *book) {
	b.text("Start the API servers, on each host that runs one:")
	if !b.is(members.StaticPod) {
		b.text("With systemd `systemctl enable --now kube-apiserver`; with kubeadm:")
	}
	dir, aside := b.manifests()
	b.commands(q("mv", filepath.Join(aside, "kube-apiserver.yaml"), dir+"/"), opened("sport = :6443"))
	b.text("When all run:")
	b.commands("export KUBECONFIG=/etc/kubernetes/admin.conf", "kubectl get --raw '/readyz?verbose'")
}
