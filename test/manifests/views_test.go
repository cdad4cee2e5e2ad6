package manifests

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

// namespace is where everything is made.
const namespace = "default"

// view is what somebody holds the objects for: what makes each one of them, by kind and name.
type view map[string]string

// views are the same objects as etcd has them, as an API server lists them, and as informers
// keep them that have been connected since the beginning.
type views struct {
	client *kubernetes.Clientset
	store  *clientv3.Client
	cached map[string]func() ([]runtime.Object, error) // by kind, of the informers
}

// resources are the kinds that are compared. Of a Service the API server keeps more than the
// object: an IPAddress, and which addresses are taken, in its own memory.
var resources = map[string]schema.GroupVersionResource{
	"configmaps":     {Version: "v1", Resource: "configmaps"},
	"services/specs": {Version: "v1", Resource: "services"},
	"ipaddresses":    {Group: "networking.k8s.io", Version: "v1", Resource: "ipaddresses"},
	"namespaces":     {Version: "v1", Resource: "namespaces"},
}

func newViews(t *testing.T, server *testserver.APIServer, store *clientv3.Client) *views {
	t.Helper()
	conf, err := clientcmd.BuildConfigFromFlags("", server.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	conf.QPS = -1 // as fast as it goes
	v := &views{store: store, cached: map[string]func() ([]runtime.Object, error){}}
	if v.client, err = kubernetes.NewForConfig(conf); err != nil {
		t.Fatal(err)
	}
	factory := informers.NewSharedInformerFactory(v.client, 0)
	for kind, resource := range resources {
		informer, err := factory.ForResource(resource)
		if err != nil {
			t.Fatal(err)
		}
		v.cached[kind] = func() ([]runtime.Object, error) { return informer.Lister().List(labels.Everything()) }
		informer.Informer() // so that it is started
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	factory.Start(ctx.Done())
	t.Cleanup(func() { cancel(); factory.Shutdown() })
	for kind, ok := range factory.WaitForCacheSync(t.Context().Done()) {
		if !ok {
			t.Fatalf("no informer of %s", kind)
		}
	}
	return v
}

// add adds an object to the view: its id says whose it is, and its revision and its content which of its
// states. A revision alone may be one that was lost and has come again.
func (v view) add(kind string, o runtime.Object, revision string) error {
	m, err := meta.Accessor(o)
	if err != nil {
		return err
	}
	if revision == "" {
		revision = m.GetResourceVersion()
	}
	content := ""
	switch o := o.(type) {
	case *core.ConfigMap:
		content = o.Data["value"]
	case *core.Service:
		content = o.Spec.ClusterIP
	}
	v[kind+"/"+m.GetNamespace()+"/"+m.GetName()] = fmt.Sprint(m.GetUID(), " ", revision, " ", content)
	return nil
}

// count returns how many of the objects that tests make have names that begin like this.
func (v view) count(prefix string) (n int) {
	for name := range v {
		if strings.Contains(name, namespace+"/"+prefix) {
			n++
		}
	}
	return n
}

// has reports whether all of what is in w is there, in the same state.
func (v view) has(w view) bool {
	for name, state := range w {
		if v[name] != state && !strings.Contains(name, "kube-system") {
			return false
		}
	}
	return true
}

// difference says how other differs.
func (v view) difference(other view) string {
	var missing, extra, changed []string
	for name, state := range v {
		switch got, ok := other[name]; {
		case !ok:
			missing = append(missing, name)
		case got != state:
			changed = append(changed, fmt.Sprintf("%s (%s, want %s)", name, got, state))
		}
	}
	for name := range other {
		if _, ok := v[name]; !ok {
			extra = append(extra, name)
		}
	}
	first := func(of []string) string {
		slices.Sort(of)
		return fmt.Sprintf("%d %v", len(of), of[:min(3, len(of))])
	}
	return "missing " + first(missing) + ", more than wanted " + first(extra) + ", changed " + first(changed)
}

// etcd reads the keys past the API server.
func (v *views) etcd(t *testing.T) view {
	t.Helper()
	out := view{}
	for kind := range resources {
		resp, err := v.store.Get(t.Context(), "/registry/"+kind+"/", clientv3.WithPrefix())
		if err != nil {
			t.Fatal(err)
		}
		for _, kv := range resp.Kvs {
			o, _, err := scheme.Codecs.UniversalDeserializer().Decode(kv.Value, nil, nil)
			if err == nil {
				err = out.add(kind, o, strconv.FormatInt(kv.ModRevision, 10))
			}
			if err != nil {
				t.Fatalf("%s: %v", kv.Key, err)
			}
		}
	}
	return out
}

// lists are the ways in which the API server is asked.
var lists = map[string]metav1.ListOptions{
	"consistent list":        {},
	"consistent list, paged": {Limit: 40},
	"cached list":            {ResourceVersion: "0"},
}

// list asks the API server.
func (v *views) list(ctx context.Context, o metav1.ListOptions) (view, error) {
	out := view{}
	for kind, resource := range resources {
		rest := v.client.CoreV1().RESTClient()
		if resource.Group != "" {
			rest = v.client.NetworkingV1().RESTClient()
		}
		for page := o; ; {
			got, err := rest.Get().Resource(resource.Resource).VersionedParams(&page, scheme.ParameterCodec).Do(ctx).Get()
			if err != nil {
				return nil, fmt.Errorf("list %s: %w", kind, err)
			}
			err = meta.EachListItem(got, func(o runtime.Object) error { return out.add(kind, o, "") })
			if err != nil {
				return nil, err
			}
			m, err := meta.ListAccessor(got)
			if err != nil {
				return nil, err
			}
			if page.Continue = m.GetContinue(); page.Continue == "" {
				break
			}
		}
	}
	return out, nil
}

// all returns what everybody but etcd holds the objects for, and the first error.
func (v *views) all(ctx context.Context) (map[string]view, error) {
	out := map[string]view{"informers": {}}
	for kind, list := range v.cached {
		objects, err := list()
		if err != nil {
			return nil, err
		}
		for _, o := range objects {
			if err := out["informers"].add(kind, o, ""); err != nil {
				return nil, err
			}
		}
	}
	for name, o := range lists {
		var err error
		if out[name], err = v.list(ctx, o); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return out, nil
}

// agree waits until all views are as etcd's.
func (v *views) agree(t *testing.T, when string) {
	t.Helper()
	var last string
	ok := testserver.EventuallyIn(t, time.Minute, "everybody agrees with etcd "+when, func() bool {
		all, err := v.all(t.Context())
		if err != nil {
			last = err.Error()
			return false
		}
		want := v.etcd(t)
		for name, got := range all {
			if !maps.Equal(want, got) {
				last = name + ": " + want.difference(got)
				return false
			}
		}
		return true
	})
	if !ok {
		t.Fatalf("the last difference: %s", last)
	}
}

// hasGoneWrong wants that the API server shows what was lost, and does not show what is new, for
// as long as one looks, without an error.
func (v *views) hasGoneWrong(t *testing.T) {
	t.Helper()
	v.create(t, "new", 5)
	for range 20 {
		all, err := v.all(t.Context())
		if err != nil {
			t.Fatalf("it goes wrong, but there is an error: %v", err)
		}
		if got := v.etcd(t); got.count("lost-") != 0 || got.count("new-") != 5 {
			t.Fatalf("etcd has %d lost, %d new objects", got.count("lost-"), got.count("new-"))
		}
		for name, got := range all {
			if got.count("lost-") != lost || got.count("new-") != 0 {
				t.Fatalf("%s has %d lost, %d new objects: is the bump not needed?", name, got.count("lost-"), got.count("new-"))
			}
		}
		time.Sleep(500 * time.Millisecond)
	}
}

// each calls f for the numbers of objects, some at once.
func each(t *testing.T, from, to int, f func(ctx context.Context, i int) error) {
	t.Helper()
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := from + w; i < to; i += 4 {
				if err := f(t.Context(), i); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// name is that of an object. Each fifth is a Service.
func name(prefix string, i int) string { return fmt.Sprintf("%s-%03d", prefix, i) }

func isService(i int) bool { return i%5 == 0 }

func (v *views) create(t *testing.T, prefix string, n int) {
	t.Helper()
	each(t, 0, n, func(ctx context.Context, i int) error {
		m := metav1.ObjectMeta{Name: name(prefix, i)}
		if isService(i) {
			_, err := v.client.CoreV1().Services(namespace).Create(ctx, &core.Service{ObjectMeta: m,
				Spec: core.ServiceSpec{Ports: []core.ServicePort{{Port: 80}}}}, metav1.CreateOptions{})
			return err
		}
		_, err := v.client.CoreV1().ConfigMaps(namespace).Create(ctx,
			&core.ConfigMap{ObjectMeta: m, Data: map[string]string{"value": prefix}}, metav1.CreateOptions{})
		return err
	})
}

func (v *views) remove(t *testing.T, prefix string, from, to int) {
	t.Helper()
	each(t, from, to, func(ctx context.Context, i int) error {
		if isService(i) {
			return v.client.CoreV1().Services(namespace).Delete(ctx, name(prefix, i), metav1.DeleteOptions{})
		}
		return v.client.CoreV1().ConfigMaps(namespace).Delete(ctx, name(prefix, i), metav1.DeleteOptions{})
	})
}

func (v *views) change(t *testing.T, prefix string, from, to int) {
	t.Helper()
	each(t, from, to, func(ctx context.Context, i int) error {
		if isService(i) {
			return nil
		}
		_, err := v.client.CoreV1().ConfigMaps(namespace).Patch(ctx, name(prefix, i), types.MergePatchType,
			[]byte(`{"data":{"value":"changed"}}`), metav1.PatchOptions{})
		return err
	})
}
