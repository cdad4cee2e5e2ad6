package from_test

import (
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/members/from"
)

const (
	unit = "[Service]\nExecStart=/usr/bin/etcd --name m1 --data-dir d --wal-dir /wal\nWorkingDirectory=/srv\nUser=etcd\n"
	pods = `apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: s
  namespace: kv
spec:
  replicas: 1
  serviceName: s
  template:
    spec:
      containers:
        - name: etcd
          image: quay.io/coreos/etcd:v3.6.5
          command:
            - etcd
            - --name=m1
            - --data-dir=/data/d
            - --wal-dir=WAL
          volumeMounts:
            - name: data
              mountPath: /data
            - name: wal
              mountPath: /wal
      volumes:
        - name: wal
          emptyDir: {}
  volumeClaimTemplates:
    - metadata:
        name: data
`
	compose = "services:\n  one:\n    image: quay.io/coreos/etcd:v3.6.5\n    user: '7'\n" +
		"    command: [etcd, --name=m1, --data-dir=/data/d]\n    volumes: ['vol:/data']\nvolumes: {vol: {name: etcd-vol}}\n"
)

// TestRead_All: the place of each member, and how it is started; a place that a host does not
// have is in a volume, or is not known.
func TestRead_All(t *testing.T) {
	claim := &members.Volume{Name: "data-s-0", MountPath: "/data", DataDir: "/data/d", WALDir: "/data/w"}
	for name, c := range map[string]struct {
		files   []string
		want    members.Place
		unknown string
	}{
		"unit": {[]string{unit}, members.Place{
			DataDir: "/srv/d", WALDir: "/wal", Owner: "etcd:", Means: members.Systemd,
		}, ""},
		"unit and its settings": {[]string{"ETCD_NAME=m1\nETCD_DATA_DIR=d\nETCD_WAL_DIR=/wal\n", unit}, members.Place{
			DataDir: "/srv/d", WALDir: "/wal", Owner: "etcd:", Means: members.Systemd,
		}, ""},
		"settings": {[]string{m1}, members.Place{DataDir: "/var/lib/m1", Means: members.ByHand}, ""},
		"relative": {[]string{"name: m1\ndata-dir: d\n"}, members.Place{Means: members.ByHand}, `data-dir: is "d"`},
		"claim": {[]string{strings.Replace(pods, "WAL", "/data/w", 1)}, members.Place{
			Means: members.StatefulSet, Unit: "s-0", Namespace: "kv", Volume: claim,
		}, ""},
		"WAL elsewhere": {[]string{strings.Replace(pods, "WAL", "/wal/w", 1)}, members.Place{
			Means: members.StatefulSet, Unit: "s-0", Namespace: "kv",
		}, "/data/d is in"},
		"no claim": {[]string{strings.NewReplacer("WAL", "", "/data/d", "/wal/d").Replace(pods)}, members.Place{
			Means: members.StatefulSet, Unit: "s-0", Namespace: "kv",
		}, "/wal/d is in"},
		"compose": {[]string{compose}, members.Place{
			Owner: "7:0", Means: members.Container, Unit: "one", Service: "one",
			Volume: &members.Volume{Name: "etcd-vol", MountPath: "/data", DataDir: "/data/d"},
		}, ""},
		"its own name": {[]string{strings.Replace(compose, "    user", "    container_name: c\n    user", 1)}, members.Place{
			Owner: "7:0", Means: members.Container, Unit: "c",
			Volume: &members.Volume{Name: "etcd-vol", MountPath: "/data", DataDir: "/data/d"},
		}, ""},
		"root": {[]string{strings.Replace(compose, "'7'", "root", 1)}, members.Place{
			Owner: "0:0", Means: members.Container, Unit: "one", Service: "one",
			Volume: &members.Volume{Name: "etcd-vol", MountPath: "/data", DataDir: "/data/d"},
		}, ""},
		"user of the image": {[]string{strings.Replace(compose, "    user: '7'\n", "", 1)}, members.Place{
			Means: members.Container, Unit: "one", Service: "one",
			Volume: &members.Volume{Name: "etcd-vol", MountPath: "/data", DataDir: "/data/d"},
		}, ""},
	} {
		found, err := from.Read(write(t, c.files...), from.Options{All: true})
		if err != nil || len(found.All) != 1 {
			t.Errorf("%s: %v, %+v", name, err, found)
			continue
		}
		got, volume := found.All[0].Place, c.want.Volume
		if (got.Volume == nil) != (volume == nil) || volume != nil && *got.Volume != *volume {
			t.Errorf("%s: the volume is %+v, want %+v", name, got.Volume, volume)
		}
		got.File, got.Volume, c.want.Volume, c.want.Member = "", nil, nil, "m1"
		if got != c.want {
			t.Errorf("%s: got %+v, want %+v", name, got, c.want)
		}
		if why := found.All[0].Unknown; !strings.Contains(why, c.unknown) || (why == "") != (c.unknown == "") {
			t.Errorf("%s: unknown %q, want %q", name, why, c.unknown)
		}
	}
	if _, err := from.Read(write(t, m1, m1), from.Options{All: true}); err == nil {
		t.Error("a member that is described twice is taken")
	}
}
