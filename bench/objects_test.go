package bench

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// object makes something like a Kubernetes pod as the API server stores it:
// names and labels that repeat, hashes and ids that do not. zstd -1 makes about a tenth
// of a database of those with four containers, and about 0.3 of one of those with none.
func object(r *rand.Rand, n, containers int) (key, value string) {
	ns, app := n%50, n%400
	id := fmt.Sprintf("%08x-%04x-4%03x-a%03x-%012x", r.Uint32(), r.Uint32N(1<<16), r.Uint32N(1<<12), r.Uint32N(1<<12),
		r.Uint64N(1<<48))
	noise := make([]byte, 480)
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	checksum := base64.StdEncoding.EncodeToString(noise)
	if containers == 0 {
		checksum = hex.EncodeToString(noise[:320])
	}
	key = fmt.Sprintf("/registry/pods/namespace-%d/app-%d-%s", ns, app, id[:13])
	value = fmt.Sprintf(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"app-%d-%s",`+
		`"namespace":"namespace-%d","uid":"%s",`+
		`"creationTimestamp":"2026-11-%02dT%02d:%02d:%02dZ","labels":{"app.kubernetes.io/name":"app-%d",`+
		`"app.kubernetes.io/part-of":"platform","pod-template-hash":"%x",`+
		`"topology.kubernetes.io/zone":"eu-central-1%c"},"annotations":{"checksum/config":"%s"}},`,
		app, id[:13], ns, id, 1+r.IntN(28), r.IntN(24), r.IntN(60), r.IntN(60), app, r.Uint32(), 'a'+rune(r.IntN(3)),
		checksum)
	for c := range containers {
		value += fmt.Sprintf(`"container-%d":{"name":"c%d","image":"registry.example.com/team-%d/app-%d@sha256:%x",`+
			`"ports":[{"containerPort":%d,"protocol":"TCP"}],"env":[{"name":"POD_IP",`+
			`"valueFrom":{"fieldRef":{"fieldPath":"status.podIP"}}},{"name":"DATABASE_URL",`+
			`"value":"postgres://app-%d.namespace-%d.svc.cluster.local:5432/db"},{"name":"LOG_LEVEL",`+
			`"value":"info"}],"resources":{"limits":{"cpu":"500m","memory":"512Mi"},"requests":{"cpu":"100m",`+
			`"memory":"128Mi"}},"livenessProbe":{"httpGet":{"path":"/healthz","port":8080,"scheme":"HTTP"},`+
			`"initialDelaySeconds":15,"timeoutSeconds":1,"periodSeconds":20,"successThreshold":1,`+
			`"failureThreshold":3},"volumeMounts":[{"name":"kube-api-access","readOnly":true,`+
			`"mountPath":"/var/run/secrets/kubernetes.io/serviceaccount"}],`+
			`"terminationMessagePath":"/dev/termination-log","imagePullPolicy":"IfNotPresent",`+
			`"securityContext":{"capabilities":{"drop":["ALL"]},"runAsNonRoot":true,`+
			`"allowPrivilegeEscalation":false}},`,
			c, c, ns, app, r.Uint64(), 8080+c, app, ns)
	}
	value += fmt.Sprintf(`"status":{"phase":"Running","podIP":"10.%d.%d.%d","startTime":"2026-11-20T10:00:00Z"}}`,
		r.IntN(256), r.IntN(256), r.IntN(256))
	return key, value
}

// fill writes objects until the database has about mib mebibytes.
func fill(b *testing.B, cl *clientv3.Client, mib, containers int) {
	b.Helper()
	const perTxn, writers = 64, 8
	r := rand.New(rand.NewPCG(7, 7))
	ctx := context.Background()
	work := make(chan []clientv3.Op)
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for ops := range work {
				if _, err := cl.Txn(ctx).Then(ops...).Commit(); err != nil {
					b.Errorf("fill: %v", err)
				}
			}
		})
	}
	written := 0
	for n := 0; written < mib<<20 && !b.Failed(); {
		var ops []clientv3.Op
		for range perTxn {
			k, v := object(r, n, containers)
			ops = append(ops, clientv3.OpPut(k, v))
			written += len(k) + len(v)
			n++
		}
		work <- ops
	}
	close(work)
	wg.Wait()
	if b.Failed() {
		b.FailNow()
	}
}
