package manifests

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	apps "k8s.io/api/apps/v1"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

// section returns the commands below a heading of the page for Kubernetes.
func section(t *testing.T, heading string) []string {
	t.Helper()
	_, text, ok := strings.Cut(read(t, filepath.Join(docs, "kubernetes.md")), "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("the page has no section %q", heading)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	var out []string
	for _, m := range regexp.MustCompile("(?ms)^```sh\n(.*?)^```$").FindAllStringSubmatch(text, -1) {
		out = append(out, m[1])
	}
	return out
}

// block returns the one that holds some words.
func block(t *testing.T, blocks []string, words string) string {
	t.Helper()
	i := slices.IndexFunc(blocks, func(b string) bool { return strings.Contains(b, words) })
	if i < 0 {
		t.Fatalf("no commands with %q", words)
	}
	return blocks[i]
}

// walker runs the commands of the page in a copy of the checkout.
type walker struct {
	kube
	root string
}

// script runs commands as a person at a shell would who stops at the first error.
func (w walker) script(t *testing.T, commands ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", strings.Join(commands, "\n"))
	cmd.Dir, cmd.Env = w.root, w.env()
	if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), "would violate") {
		t.Fatalf("%v: %s\n%s", err, strings.Join(commands, "\n"), out)
	}
}

// walk goes the ways of the page from its first command to a daemon that answers.
func (k kube) walk(t *testing.T) {
	tool(t, "openssl", "openssl")
	w, c := walker{kube: k, root: t.TempDir()}, newContents(t)
	if err := os.CopyFS(filepath.Join(w.root, "deploy"), os.DirFS(deploy)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"etcd-ca.crt", "etcd-client.crt", "etcd-client.key", "staging-ca.crt",
		"staging-client.crt", "staging-client.key", "etcd-server-tls.crt", "etcd-server-tls.key", "etcd-peer-tls.crt",
		"etcd-peer-tls.key", "etcd-client-tls.crt", "etcd-client-tls.key", "slack-url"} {
		write(t, filepath.Join(w.root, name), c.of(name))
	}
	write(t, filepath.Join(k.home, ".aws/credentials"), c.of("credentials"))

	// The commands make them, and may find nothing of the tests before in them.
	k.namespace(t, "backupd", "restricted")
	k.namespace(t, "etcd", "restricted")
	k.kubectl(t, nil, "delete", "namespace", "backupd", "etcd", "--wait=false")
	k.finalize(t, "backupd", "etcd")
	secrets := strings.Join(section(t, "1. Secrets"), "\n")
	w.script(t, secrets)
	w.helm(t)
	w.kustomize(t)

	w.script(t, strings.ReplaceAll(secrets, "NS=backupd", "NS=etcd"),
		block(t, section(t, "2. With kustomize"), "etcd-server-tls"))
	for _, overlay := range []string{"cronjob", "kubeadm", "sidecar"} {
		w.script(t, "kubectl apply -k deploy/kustomize/overlays/"+overlay)
		file, env := w.files(t, overlay)
		configCheck(t, file, env)
	}
}

// finalize ends namespaces as their controller would.
func (k kube) finalize(t *testing.T, namespaces ...string) {
	t.Helper()
	for _, name := range namespaces {
		k.kubectl(t, []byte(`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"`+name+`"},"spec":{"finalizers":[]}}`),
			"replace", "--raw", "/api/v1/namespaces/"+name+"/finalize", "-f", "-")
	}
}

func (w walker) helm(t *testing.T) {
	commands := section(t, "2. Or with Helm")
	if len(commands) != 1 || !strings.HasSuffix(commands[0], "\nhelm test backupd --namespace backupd\n") {
		t.Fatalf("the commands for Helm end with no test: %q", commands)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.kubelet(ctx, "backupd")
	}()
	w.script(t, commands...)
	stop()
	<-ended
	w.daemonStarts(t)
	w.run(t, nil, "helm", "uninstall", "backupd", "--namespace=backupd", "--wait")
	w.kubectl(t, nil, "delete", "pods", "--all", "--namespace=backupd")
}

// helmTest runs "helm test" where no kubelet runs the pod.
func (k kube) helmTest(t *testing.T, namespace string) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		k.kubelet(ctx, namespace)
	}()
	out := k.run(t, nil, "helm", "test", "backupd", "--namespace="+namespace, "--timeout=60s")
	stop()
	<-ended
	if !strings.Contains(out, "Succeeded") {
		t.Errorf("helm test: %s", out)
	}
	k.kubectl(t, nil, "delete", "pods", "--all", "--namespace="+namespace)
}

// kubelet says of the pod of "helm test" that it has succeeded, as soon as it is there.
func (k kube) kubelet(ctx context.Context, namespace string) {
	for _, args := range [][]string{
		{"wait", "--for=create", "--timeout=60s", "pod/backupd-check"},
		{
			"patch", "pod/backupd-check", "--subresource=status", "--type=merge",
			`--patch={"status":{"phase":"Succeeded"}}`,
		},
	} {
		cmd := exec.CommandContext(ctx, filepath.Join(k.bin, "kubectl"), append(args, "--namespace="+namespace)...)
		cmd.Env = k.env()
		_ = cmd.Run() // if it fails, the test of helm has its time-out
	}
}

func (w walker) kustomize(t *testing.T) {
	commands := section(t, "2. With kustomize")
	w.script(t, block(t, commands, "mkdir -p my-backupd"))
	w.daemonStarts(t)

	own := filepath.Join(w.root, "my-backupd")
	write(t, filepath.Join(own, "backupd.yaml"), []byte(strings.Replace(read(t, filepath.Join(own, "backupd.yaml")),
		"\ndaemon:\n", `
  - name: staging
    endpoints: ["https://etcd.staging.svc:2379"]
    tls:
      ca-file: /etc/backupd/etcd/staging/ca.crt
      cert-file: /etc/backupd/etcd/staging/tls.crt
      key-file: /etc/backupd/etcd/staging/tls.key
    snapshot: {schedule: "@hourly"}

daemon:
  notifications:
    - slack: {url-file: /etc/backupd/notifications/slack-url}
`, 1)))
	w.script(t, "export NS=backupd; cd my-backupd", block(t, commands, "backupd-etcd-staging"))
	w.daemonStarts(t)

	line := block(t, blocks(t, "kubernetes.md", "yaml"), "components:")
	w.script(t, "cd my-backupd; cat >> kustomization.yaml <<'END'\n"+line+"END\nkubectl apply -k .")
	w.kubectl(t, nil, "get", "podmonitor/backupd", "prometheusrule/backupd", "--namespace=backupd")
	w.script(t, "cd my-backupd; kubectl kustomize . | kubectl delete -f - --selector app.kubernetes.io/name=backupd")
}

// daemonStarts starts the daemon with the files of its pod.
func (w walker) daemonStarts(t *testing.T) {
	t.Helper()
	file, env := w.files(t, "daemon")
	at, err := url.Parse(testserver.FreeURL(t))
	if err != nil {
		t.Fatal(err)
	}
	conf, listen := read(t, file), regexp.MustCompile(`listen: "?:9387"?`)
	if !listen.MatchString(conf) {
		t.Fatalf("it listens elsewhere:\n%s", conf)
	}
	write(t, file, []byte(listen.ReplaceAllLiteralString(conf, `listen: "`+at.Host+`"`)))
	ctx, stop := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, backupd(t), "run", "--config="+file)
	cmd.Env = append(env, "PATH=/usr/bin:/bin", "TMPDIR="+t.TempDir())
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	defer func() { stop(); <-ended }()

	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(read(t, filepath.Join(filepath.Dir(filepath.Dir(file)), "tls/ca.crt"))))
	client := http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "backupd.backupd.svc"},
	}}
	defer client.CloseIdleConnections()
	limit := time.After(time.Minute)
	for tick := time.NewTicker(50 * time.Millisecond); ; {
		resp, err := client.Get("https://" + at.Host + "/healthz")
		if err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		select {
		case end := <-ended:
			ended <- end
			t.Fatalf("the daemon ended: %v\n%s", end, read(t, log.Name()))
		case <-limit:
			t.Fatalf("the daemon does not answer: %v\n%s", err, read(t, log.Name()))
		case <-tick.C:
		}
	}
}

// files lays out what the pod of an overlay would see, as the server has it: a Secret
// that nobody made is an error. They are the configuration, and the environment.
func (k kube) files(t *testing.T, overlay string) (string, []string) {
	t.Helper()
	namespace := namespaceOf(overlay)
	var o object
	switch overlay {
	case "daemon":
		o = get(t, k, namespace, "deployment", "backupd", &apps.Deployment{})
	case "cronjob":
		o = get(t, k, namespace, "cronjob", "backupd", &batch.CronJob{})
	case "kubeadm":
		o = get(t, k, namespace, "daemonset", "backupd", &apps.DaemonSet{})
	case "sidecar":
		o = get(t, k, namespace, "statefulset", "etcd", &apps.StatefulSet{})
	}
	p, root, c := pods([]object{o})[0], t.TempDir(), newContents(t)
	move := strings.NewReplacer("/etc/", root+"/etc/", "/var/lib/", root+"/var/lib/")
	get(t, k, namespace, "serviceaccount", p.spec.ServiceAccountName, &core.ServiceAccount{})
	for _, v := range p.spec.Volumes { // also those of etcd
		if v.Secret != nil {
			get(t, k, namespace, "secret", v.Secret.SecretName, &core.Secret{})
		}
	}
	container := p.backupd(t)
	for _, m := range container.VolumeMounts {
		v := p.spec.Volumes[slices.IndexFunc(p.spec.Volumes, func(v core.Volume) bool { return v.Name == m.Name })]
		at := move.Replace(m.MountPath + "/")
		switch {
		case v.ConfigMap != nil:
			for name, content := range get(t, k, namespace, "configmap", v.ConfigMap.Name, &core.ConfigMap{}).Data {
				write(t, filepath.Join(at, name), []byte(move.Replace(content)))
			}
		case v.Secret != nil:
			for name, content := range get(t, k, namespace, "secret", v.Secret.SecretName, &core.Secret{}).Data {
				write(t, filepath.Join(at, name), content)
			}
		case v.HostPath != nil:
			write(t, strings.TrimSuffix(at, "/"), c.of(filepath.Base(m.MountPath)))
		default:
			if err := os.MkdirAll(at, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	var env []string
	if overlay == "kubeadm" {
		env = append(env, "HOST_IP=10.0.0.1")
	}
	return filepath.Join(root, "etc/backupd/config/backupd.yaml"), env
}
