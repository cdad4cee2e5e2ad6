package kube_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/members/kube"
)

// set is a StatefulSet, of which each test changes one thing.
const set = `apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: etcd
spec:
  serviceName: etcd
  replicas: 3
  template:
    spec:
      containers:
      - name: etcd
        image: quay.io/coreos/etcd:v3.6.5
        command:
        - etcd
        - --name=$(POD_NAME)
        - --data-dir=/data/etcd
        - --initial-advertise-peer-urls=http://$(POD_NAME).etcd:2380
        env:
        - name: POD_NAME
          valueFrom: {fieldRef: {fieldPath: metadata.name}}
        volumeMounts:
        - {name: data, mountPath: /data}
  volumeClaimTemplates:
  - metadata: {name: data}
`

// TestRead_Refuses: what is not known and decides is refused with its line.
func TestRead_Refuses(t *testing.T) {
	script := func(text string) [2]string {
		return [2]string{"        - etcd\n        - --name=$(POD_NAME)\n        - --data-dir=/data/etcd\n" +
			"        - --initial-advertise-peer-urls=http://$(POD_NAME).etcd:2380\n",
			"        - sh\n        - -c\n        - |\n          " + strings.ReplaceAll(text, "\n", "\n          ") + "\n"}
	}
	tests := map[string]struct {
		change [2]string
		want   string
	}{
		"a name of a Secret": {
			[2]string{"{fieldRef: {fieldPath: metadata.name}}", "{secretKeyRef: {name: s, key: k}}"},
			"f:15: --name is not known here: $(POD_NAME): it is k of the Secret s"},
		"a name of a ConfigMap": {
			[2]string{"{fieldRef: {fieldPath: metadata.name}}", "{configMapKeyRef: {name: c, key: k}}"},
			"f:15: --name is not known here: $(POD_NAME): it is k of the ConfigMap c: put it into the same file"},
		"a namespace that is not said": {
			[2]string{"metadata.name}", "metadata.namespace}"},
			"f:15: --name is not known here: $(POD_NAME): it is the namespace, which the file does not say"},
		"a field of the running pod": {
			[2]string{"metadata.name}", "status.podIP}"},
			"f:15: --name is not known here: $(POD_NAME): it is status.podIP of the running pod"},
		"a data directory of a service": {
			[2]string{"/data/etcd", "/data/$(ETCD_SERVICE_HOST)"},
			"f:16: --data-dir is not known here: $(ETCD_SERVICE_HOST): it is made of a service"},
		"any flag": {
			[2]string{"- --data-dir=/data/etcd", "- $(KUBERNETES_PORT)"},
			"f:16: $(KUBERNETES_PORT) may be any flag of etcd"},
		"all variables of a ConfigMap": {
			[2]string{"        env:\n", "        envFrom:\n        - configMapRef: {name: c}\n        env:\n"},
			"f:19: ETCD_WAL_DIR may be what the ConfigMap c sets: put it into the same file"},
		"all variables of a Secret": {
			[2]string{"        env:\n", "        envFrom:\n        - {prefix: ETCD_, secretRef: {name: s}}\n        env:\n"},
			"f:19: ETCD_WAL_DIR may be what the Secret s sets"},
		"a variable of etcd": {
			[2]string{"        volumeMounts:", "        - {name: ETCD_WAL_DIR, valueFrom: {secretKeyRef: {name: s, key: k}}}\n" +
				"        volumeMounts:"},
			"f:21: ETCD_WAL_DIR is not known here: $(ETCD_WAL_DIR): it is k of the Secret s"},
		"no replicas": {
			[2]string{"replicas: 3", "replicas: 0"}, "f:7: the StatefulSet etcd is scaled to 0"},
		"many replicas": {
			[2]string{"replicas: 3", "replicas: 1000000"}, "f:7: 1000000 replicas: no etcd cluster"},
		"replicas that are text": {[2]string{"replicas: 3", `replicas: "3"`}, "f:7: want a whole number"},
		"a DaemonSet": {
			[2]string{"kind: StatefulSet", "kind: DaemonSet"}, "f:11: DaemonSet etcd runs etcd: names and"},
		"a Deployment": {
			[2]string{"kind: StatefulSet", "kind: Deployment"}, "f:11: Deployment etcd runs etcd: names and"},
		"nothing of etcd": {[2]string{"- etcd\n", "- kube-apiserver\n"},
			"f:14: no start of etcd is found in what kube-apiserver runs"},
		"a volume that is not there": {
			[2]string{"{name: data, mount", "{name: date, mount"}, "f:22: there is no volume date"},
		"a mount that is relative": {
			[2]string{"mountPath: /data", "mountPath: data"}, "f:22: want an absolute mountPath"},
		"a path that goes up": {[2]string{"mountPath: /data}", "mountPath: /data, subPath: ../x}"},
			"f:22: a path below the volume must not be absolute or go up: ../x"},
		"a number for text": {
			[2]string{"- --data-dir=/data/etcd", "- 2380"}, "f:16: 2380 is not text for Kubernetes"},
		"yes for text": {
			[2]string{"fieldPath: metadata.name", "fieldPath: yes"}, "f:20: yes is not text for Kubernetes"},
		"twice": {
			[2]string{"  replicas: 3\n", "  replicas: 3\n  replicas: 5\n"}, "f:8: replicas is here for the second"},
		"a merge": {
			[2]string{"  replicas: 3\n", "  <<: {replicas: 5}\n"}, "f:7: merge keys are not followed"},
		"a tag":               {[2]string{"- etcd\n", "- !!str etcd\n"}, "f:14: YAML tags such as"},
		"a template":          {[2]string{"replicas: 3", "replicas: {{ .Values.replicas }}"}, "f:7: "},
		"a flow that is open": {[2]string{"{name: data}", "{name: data"}, "f:"},
		"two starts that differ": {script("if [ -e /data/x ]; then exec etcd --name=a --data-dir=/data; fi\n" +
			"exec etcd --name=a --data-dir=/data/b"), "f:17: --data-dir is /data here, and /data/b at f:18"},
		"a start without its place": {script("if [ -e /data/x ]; then exec etcd --name=a; fi\n" +
			"exec etcd --name=a --data-dir=/data/b"), "f:17: --data-dir is given for one start of etcd and not for another"},
		"a script that asks": {script("NAME=$(curl -s http://x)\nexec etcd --name=$NAME --data-dir=/data"),
			"f:18: --name is not known here: f:17: "},
		"a script with a secret": {script("exec etcd --name=a --data-dir=/data/$KUBERNETES_PORT"),
			"f:17: --data-dir is not known here: $(KUBERNETES_PORT): it is made of a service"},
		"a variable that a script may set": {script("if [ -e /x ]; then export ETCD_WAL_DIR=/wal; fi\n" +
			"exec etcd --name=a --data-dir=/data"), "f:17: what the condition of this line gives"},
		"a script whose last start is not known": {
			script("if [ -e /x ]; then exec etcd --name=a --data-dir=/d; fi\nN=$(x)\n" +
				"exec etcd --name=$N --data-dir=/d --initial-advertise-peer-urls=http://$N"),
			"f:19: --initial-advertise-peer-urls is not known here: f:18: what $(x) gives",
		},
		"a script whose last start has another URL": {
			script("if [ -e /x ]; then exec etcd --name=a --data-dir=/d; fi\n" +
				"exec etcd --name=a --data-dir=/d --initial-advertise-peer-urls=$(x)"),
			"f:18: --initial-advertise-peer-urls is not known here: f:18: what $(x) gives",
		},
		"a script that counts": {
			script("N=1\nfor i in $(x); do\netcd --name=$N --data-dir=/d\necho $((N += 1))\ndone"),
			"f:19: --name is not known here: f:18: "},
		"a script that is not in the file": {
			[2]string{"        - etcd\n", "        - sh\n        - /scripts/run.sh\n"},
			"f:14: no start of etcd is found in what sh runs"},
		"an image without settings": {[2]string{"        command:\n        - etcd\n        - --name=$(POD_NAME)\n",
			"        args:\n"}, "f:11: the image says what runs in this container, and with which name"},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(set, c.change[0], c.change[1], 1)
			if text == set {
				t.Fatal("nothing is changed")
			}
			got, err := read(text)
			var at *members.FileError
			if !errors.As(err, &at) || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("got %v, want %s\n%v", err, c.want, got)
			}
			if !kube.Recognize("f", []byte(text)) {
				t.Error("it is not recognized any more")
			}
		})
	}
	for text, want := range map[string]string{
		"[Unit]\n": "f: not a file of Kubernetes", "": "f: not a file of Kubernetes",
		"apiVersion: v1\nkind: ConfigMap\n": "f: no container runs etcd",
	} {
		if _, err := read(text); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
	}
}
