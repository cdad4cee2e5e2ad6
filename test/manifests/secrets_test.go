package manifests

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	core "k8s.io/api/core/v1"
	rbac "k8s.io/api/rbac/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// account is where backupd looks for what it needs to ask the API server, as all programs in pods do.
const account = "/var/run/secrets/kubernetes.io/serviceaccount"

// TestTokens: only pods that read Secrets have a token, which is renewed, and it is their container's
// alone.
func TestTokens(t *testing.T) {
	found := 0
	for _, s := range sets(t) {
		for _, p := range pods(s.objects(t)) {
			mounted := false
			for _, v := range p.spec.Volumes {
				if v.Projected == nil {
					continue
				}
				found++
				token := v.Projected.Sources[0].ServiceAccountToken
				if token == nil || token.Path != "token" || *token.ExpirationSeconds != 3600 || token.Audience != "" ||
					v.Projected.Sources[1].ConfigMap.Items[0].Path != "ca.crt" || *v.Projected.DefaultMode != 0o440 {
					t.Errorf("%s: %s: %+v", s.name, p.of, v.Projected)
				}
				mounted = slices.ContainsFunc(p.backupd(t).VolumeMounts, func(m core.VolumeMount) bool {
					return m.Name == v.Name && m.MountPath == account && m.ReadOnly
				})
			}
			if mounted != s.secrets {
				t.Errorf("%s: %s has a token: %v, want %v", s.name, p.of, mounted, s.secrets)
			}
		}
	}
	if found != 5 {
		t.Errorf("%d tokens, want 5: of three overlays, and of a Deployment and its test", found)
	}
}

// TestRoles: the chart lets its account get the Secrets that the configuration names, each in its
// namespace, and nothing else.
func TestRoles(t *testing.T) {
	allowed := map[string]string{}
	objects := chartSet(t, chartDir+"/ci/daemon-values.yaml").objects(t)
	for _, r := range of[*rbac.Role](objects) {
		if len(r.Rules) != 1 || !reflect.DeepEqual(r.Rules[0].Verbs, []string{"get"}) ||
			!reflect.DeepEqual(r.Rules[0].Resources, []string{"secrets"}) ||
			!reflect.DeepEqual(r.Rules[0].APIGroups, []string{""}) || len(r.Rules[0].ResourceNames) == 0 {
			t.Errorf("a Role with %+v", r.Rules)
		}
		allowed[r.Namespace] = strings.Join(r.Rules[0].ResourceNames, " ")
	}
	if want := map[string]string{"prod": "etcd-peer-tls etcd-server-tls", "staging": "etcd.tls"}; !reflect.DeepEqual(
		allowed, want) {
		t.Errorf("%v, want %v", allowed, want)
	}
	bindings := of[*rbac.RoleBinding](objects)
	for _, b := range bindings {
		if b.RoleRef.Kind != "Role" || len(b.Subjects) != 1 || b.Subjects[0] != (rbac.Subject{
			Kind: "ServiceAccount", Name: "backupd", Namespace: "backups",
		}) || allowed[b.Namespace] == "" || b.RoleRef.Name != "backups-backupd-companions" {
			t.Errorf("%+v", b)
		}
	}
	if len(bindings) != 2 {
		t.Errorf("%d bindings, want 2", len(bindings))
	}

	// Who reads by a kubeconfig, or makes the Roles, gets none.
	render := func(companions string, create bool) (roles, token bool) {
		t.Helper()
		rendered, err := renderChart(map[string]any{
			"companions": map[string]any{"createRoles": create},
			"config": map[string]any{
				"repositories": map[string]any{"main": map[string]any{"url": "s3://example-backups/etcd"}},
				"clusters": []any{map[string]any{
					"name": "a", "endpoints": []any{"http://etcd:2379"}, "companions": map[string]any{
						"secrets": []any{"prod/certs"}, "kubeconfig": companions,
					},
				}},
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(rendered["backupd/templates/companions.yaml"], "kind: Role"),
			strings.Contains(rendered["backupd/templates/deployment.yaml"], account)
	}
	for _, tt := range []struct {
		kubeconfig           string
		create, roles, token bool
	}{{"", true, true, true}, {"", false, false, true}, {"/etc/backupd/kubeconfig", true, false, false}} {
		if roles, token := render(tt.kubeconfig, tt.create); roles != tt.roles || token != tt.token {
			t.Errorf("%+v: roles %v, token %v", tt, roles, token)
		}
	}
}

// bare is a Secret without what a server adds to one.
func bare(s *core.Secret) *core.Secret {
	return &core.Secret{
		TypeMeta: s.TypeMeta, Type: s.Type, Immutable: s.Immutable, Data: s.Data,
		ObjectMeta: meta.ObjectMeta{
			Name: s.Name, Namespace: s.Namespace, Labels: s.Labels, Annotations: s.Annotations,
		},
	}
}

// companionSecrets: a real API server, with RBAC, gives backupd the Secrets that a Role names, by a
// token of a service account, and no other. They come back with kubectl from what a snapshot holds.
func (k kube) companionSecrets(t *testing.T) {
	k.namespace(t, "backupd", "restricted")
	k.namespace(t, "prod", "restricted")
	c := newContents(t)
	large, err := json.Marshal(map[string][]byte{"data": []byte(strings.Repeat("x", 900<<10))})
	if err != nil {
		t.Fatal(err)
	}
	tls, err := json.Marshal(map[string][]byte{"tls.crt": c.cert, "tls.key": c.key, "empty": nil})
	if err != nil {
		t.Fatal(err)
	}
	k.apply(t, "prod", [][]byte{
		[]byte("{apiVersion: v1, kind: Secret, type: kubernetes.io/tls, metadata: {name: etcd-server-tls, " +
			"labels: {app: etcd}, annotations: {note: \"<kept> & \\u2028\"}}, data: " + string(tls) + "}"),
		[]byte("{apiVersion: v1, kind: Secret, immutable: true, metadata: {name: etcd-peer-tls}, stringData: {k: v}}"),
		[]byte("{apiVersion: v1, kind: Secret, metadata: {name: large}, data: " + string(large) + "}"),
		[]byte("{apiVersion: v1, kind: Secret, metadata: {name: other}, stringData: {k: parsley}}"),
	})
	// As people apply one, with all of it in an annotation.
	k.kubectl(t, []byte("{apiVersion: v1, kind: Secret, metadata: {name: by-hand, namespace: prod}, stringData: {k: v}}"),
		"apply", "-f", "-")
	account := [][]byte{[]byte("{apiVersion: v1, kind: ServiceAccount, metadata: {name: backupd}}")}
	k.apply(t, "backupd", account)
	defer k.remove(t, "backupd", account) // the page makes its own
	// The commands of the page make the Role of the example; this one has more names.
	commands := block(t, section(t, "Secrets as companions"), "create role ")
	for line := range strings.Lines(strings.ReplaceAll(commands, "\\\n", "")) {
		k.kubectl(t, nil, strings.Fields(line)[1:]...)
	}
	example := read(t, deploy+"/kustomize/components/companion-secrets/role.example.yaml")
	o, err := decode(documents(t, []byte(example))[0])
	made := get(t, k, "prod", "role", "backupd-companions", &rbac.Role{})
	if err != nil || !reflect.DeepEqual(made.Rules, o.(*rbac.Role).Rules) {
		t.Errorf("%v: the page makes %+v", err, made.Rules)
	}
	role := strings.Replace(example,
		"[etcd-server-tls, etcd-peer-tls]", "[etcd-server-tls, etcd-peer-tls, large, by-hand, gone]", 1)
	k.apply(t, "prod", documents(t, []byte(role)))

	dir := t.TempDir()
	write(t, filepath.Join(dir, "token"), []byte(k.kubectl(t, nil, "create", "token", "backupd", "--namespace=backupd")))
	// The cluster of the kubeconfig of the administrator, and the token of the account.
	admin := read(t, k.config)
	ours := regexp.MustCompile(`token: "[^"]*"`).ReplaceAllString(admin, "tokenFile: token")
	if ours == admin {
		t.Fatalf("no token in %s", admin)
	}
	write(t, filepath.Join(dir, "kubeconfig"), []byte(ours))
	run := func(args ...string) (string, error) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), backupd(t), args...)
		cmd.Dir = dir
		cmd.Env = []string{"PATH=/usr/bin:/bin", "TMPDIR=" + t.TempDir(), "HOME=" + dir, "BACKUPD_SPOOL_MIN_FREE=0B",
			"BACKUPD_REPO=file://" + dir + "/repo", "BACKUPD_CLUSTER=prod", "BACKUPD_SPOOL=" + t.TempDir(),
			"ETCDCTL_ENDPOINTS=" + strings.Join(k.etcd.Endpoints(), ",")}
		out, err := cmd.CombinedOutput()
		token := read(t, filepath.Join(dir, "token"))
		if text := string(out); strings.Contains(text, "parsley") || strings.Contains(text, strings.TrimSpace(token)) {
			t.Errorf("it shows a secret: %s", text)
		}
		return string(out), err
	}
	if err := os.Mkdir(filepath.Join(dir, "repo"), 0o700); err != nil {
		t.Fatal(err)
	}
	names := []string{"etcd-server-tls", "etcd-peer-tls", "large", "by-hand"}
	args := []string{"backup", "--init", "--companions-unencrypted", "--kubeconfig=kubeconfig",
		"--companion-secret=prod/other", "--companion-secret=prod/gone"}
	for _, name := range names {
		args = append(args, "--companion-secret=prod/"+name)
	}
	out, err := run(args...)
	for _, want := range []string{
		"Verified snapshot ",
		"prod/other +MISSING +forbidden: system:serviceaccount:backupd:backupd may not get it: its Role in the " +
			"namespace prod needs the verb get on secrets, with other among resourceNames",
		"prod/gone +MISSING +not found: the API server at ",
	} {
		if err == nil || !regexp.MustCompile(want).MatchString(out) {
			t.Fatalf("%v, want %q: %s", err, want, out)
		}
	}
	if out, err := run("companions", "latest", "--output-dir=found"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, name := range names {
		was := get(t, k, "prod", "secret", name, &core.Secret{})
		folder := filepath.Join(dir, "found/kubernetes.io/secrets/prod", name)
		for key, value := range was.Data {
			if raw := read(t, filepath.Join(folder, "data", key)); raw != string(value) {
				t.Errorf("%s: %s is another one", name, key)
			}
		}
		k.kubectl(t, nil, "delete", "secret", name, "--namespace=prod")
		k.kubectl(t, nil, "apply", "--server-side", "--validate=strict", "-f", filepath.Join(folder, "secret.json"))
		delete(was.Annotations, "kubectl.kubernetes.io/last-applied-configuration")
		if len(was.Annotations) == 0 {
			was.Annotations = nil
		}
		if is := get(t, k, "prod", "secret", name, &core.Secret{}); !reflect.DeepEqual(bare(is), bare(was)) {
			t.Errorf("%s came back as %+v", name, bare(is).ObjectMeta)
		}
	}
	// What was applied again is what the snapshot holds, and it is nothing new.
	if out, err := run("verify", "latest"); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	by := filepath.Join(dir, "found/kubernetes.io/secrets/prod/by-hand/secret.json")
	if strings.Contains(read(t, by), "annotations") {
		t.Error("the annotation of kubectl is stored")
	}
}
