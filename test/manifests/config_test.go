package manifests

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	core "k8s.io/api/core/v1"
)

const exampleSecrets = deploy + "/kustomize/secrets/secrets.example.yaml"

// secretKeys returns the keys of each Secret in the examples.
func secretKeys(t *testing.T) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	for _, doc := range documents(t, []byte(read(t, exampleSecrets))) {
		o, err := decode(doc)
		if err != nil {
			t.Fatalf("%s: %v", exampleSecrets, err)
		}
		secret := o.(*core.Secret)
		for key, value := range secret.StringData {
			out[secret.Name] = append(out[secret.Name], key)
			if !strings.Contains(value, "REPLACE") {
				t.Errorf("Secret %s: %s looks like a real value", secret.Name, key)
			}
		}
	}
	return out
}

// contents makes files that are what their names say.
type contents struct{ cert, key, ca []byte }

func newContents(t *testing.T) contents {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "backupd"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return contents{cert: cert, ca: cert, key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})}
}

func (c contents) of(name string) []byte {
	switch {
	case name == "ca.crt" || strings.HasSuffix(name, "-ca.crt"):
		return c.ca
	case strings.HasSuffix(name, ".crt"):
		return c.cert
	case strings.HasSuffix(name, ".key"):
		return c.key
	case strings.HasSuffix(name, "-url"):
		return []byte("https://hooks.example.com/T/B/X\n")
	case strings.HasSuffix(name, "credentials"):
		return []byte("[default]\naws_access_key_id = a\naws_secret_access_key = b\n")
	}
	return []byte(strings.Repeat(name[:1], 32) + "\n") // a token
}

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// configCheck runs the real check of a configuration in an environment.
func configCheck(t *testing.T, file string, env []string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), backupd(t), "config", "check", file)
	cmd.Env = append(env, "PATH=/usr/bin:/bin", "TMPDIR="+t.TempDir())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("backupd config check: %v\n%s", err, out)
	}
}

// TestConfigurations builds the files that each pod sees, from ConfigMaps, Secrets,
// and the host, and has backupd check its configuration there. So every path in
// it must be mounted, and every Secret must have the key.
func TestConfigurations(t *testing.T) {
	secrets, c := secretKeys(t), newContents(t)
	for _, s := range sets(t) {
		objects := s.objects(t)
		for _, p := range pods(objects) {
			t.Run(s.name+" "+p.of, func(t *testing.T) {
				root := t.TempDir()
				move := strings.NewReplacer("/etc/", root+"/etc/", "/var/lib/", root+"/var/lib/")
				container := p.backupd(t)
				for _, m := range container.VolumeMounts {
					i := slices.IndexFunc(p.spec.Volumes, func(v core.Volume) bool { return v.Name == m.Name })
					if i < 0 {
						t.Fatalf("mounts %s, which is no volume", m.Name)
					}
					mount(t, move, m.MountPath, p.spec.Volumes[i], objects, secrets, c)
				}
				const flag = "--config="
				i := slices.IndexFunc(container.Args, func(a string) bool { return strings.HasPrefix(a, flag) })
				if i < 0 {
					t.Fatalf("arguments %q name no configuration", container.Args)
				}
				var env []string
				for _, e := range container.Env {
					value := e.Value
					if e.ValueFrom != nil && e.ValueFrom.FieldRef.FieldPath == "status.hostIP" {
						value = "10.0.0.1"
					}
					env = append(env, e.Name+"="+value)
				}
				configCheck(t, move.Replace(strings.TrimPrefix(container.Args[i], flag)), env)
			})
		}
	}
}

func mount(t *testing.T, move *strings.Replacer, path string, v core.Volume, objects []object,
	secrets map[string][]string, c contents) {
	t.Helper()
	at := move.Replace(path + "/")
	switch {
	case v.ConfigMap != nil:
		for _, cm := range of[*core.ConfigMap](objects) {
			for name, content := range cm.Data {
				if cm.Name == v.ConfigMap.Name {
					write(t, filepath.Join(at, name), []byte(move.Replace(content)))
				}
			}
		}
	case v.Secret != nil:
		if mode := *v.Secret.DefaultMode; mode != 0o440 && mode != 0o444 {
			t.Errorf("Secret %s has mode %o", v.Secret.SecretName, mode)
		}
		keys := secrets[v.Secret.SecretName]
		if len(keys) == 0 {
			t.Errorf("%s does not describe the Secret %s", exampleSecrets, v.Secret.SecretName)
		}
		for _, key := range keys {
			write(t, filepath.Join(at, key), c.of(key))
		}
	case v.Projected != nil: // of the API, which nothing is asked of here
		if path != account {
			t.Errorf("%s is mounted at %s", v.Name, path)
		}
	case v.HostPath != nil:
		if v.HostPath.Path != path {
			t.Errorf("%s of the host is mounted at %s", v.HostPath.Path, path)
		}
		write(t, strings.TrimSuffix(at, "/"), c.of(filepath.Base(path)))
	default:
		if err := os.MkdirAll(at, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSystemdConfiguration does the same with the credentials of the unit.
func TestSystemdConfiguration(t *testing.T) {
	dir, c := t.TempDir(), newContents(t)
	for _, credential := range unitValues(t, "backupd.service", "LoadCredential") {
		name, _, _ := strings.Cut(credential, ":")
		write(t, filepath.Join(dir, "credentials", name), c.of(name))
	}
	state := map[string]bool{}
	for _, name := range strings.Fields(strings.Join(unitValues(t, "backupd.service", "StateDirectory"), " ")) {
		state["/var/lib/"+name] = true
	}
	content := read(t, deploy+"/systemd/backupd.yaml")
	const spool = "/var/lib/backupd-spool"
	if !state[spool] || !strings.Contains(content, "folder: "+spool+"\n") {
		t.Errorf("the unit has the folders %v, the configuration another spool", state)
	}
	file := filepath.Join(dir, "backupd.yaml")
	write(t, file, []byte(strings.ReplaceAll(content, spool, dir)))
	configCheck(t, file, []string{"CREDENTIALS_DIRECTORY=" + filepath.Join(dir, "credentials")})
}

// TestPodMonitors: the Secrets have the keys, and a pod has the port.
func TestPodMonitors(t *testing.T) {
	secrets, found := secretKeys(t), 0
	has := func(ref core.SecretKeySelector) bool { return slices.Contains(secrets[ref.Name], ref.Key) }
	for _, s := range sets(t) {
		objects := s.objects(t)
		for _, m := range of[*monitoring.PodMonitor](objects) {
			found++
			e := m.Spec.PodMetricsEndpoints[0]
			if e.Authorization == nil || !has(*e.Authorization.Credentials) {
				t.Errorf("%s: PodMonitor shows no token that is in a Secret", s.name)
			}
			if e.TLSConfig == nil || e.TLSConfig.CA.Secret == nil || !has(*e.TLSConfig.CA.Secret) ||
				e.TLSConfig.InsecureSkipVerify != nil {
				t.Errorf("%s: PodMonitor does not verify the certificate", s.name)
			}
			// The names that the page has in the certificate.
			names := []string{"backupd", "backupd." + s.namespace, "backupd." + s.namespace + ".svc"}
			if got := *e.TLSConfig.ServerName; !slices.Contains(names, got) {
				t.Errorf("%s: PodMonitor expects a certificate for %s, want one of %q", s.name, got, names)
			}
			if !slices.ContainsFunc(pods(objects),
				func(p pod) bool { return selects(t, m.Spec.Selector, p) && hasPort(p, *e.Port) }) {
				t.Errorf("%s: PodMonitor finds no pod", s.name)
			}
		}
	}
	if found != 7 {
		t.Errorf("%d PodMonitors, want 7: of four overlays, and of three files of values", found)
	}
}
