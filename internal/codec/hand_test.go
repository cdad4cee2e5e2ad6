package codec_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"
	"filippo.io/age/armor"
	"filippo.io/age/plugin"
	"golang.org/x/crypto/ssh"

	"github.com/etcd-backupd/backupd/internal/codec"
)

// runPlugin is a plugin for age that asks for a PIN. Its keys hold keys of age itself.
func runPlugin() int {
	p, err := plugin.New("backupdtest")
	if err != nil {
		return 1
	}
	p.HandleRecipient(func(data []byte) (age.Recipient, error) { return age.ParseX25519Recipient(string(data)) })
	p.HandleIdentity(func(data []byte) (age.Identity, error) {
		if pin, err := p.RequestValue("PIN", true); err != nil || pin != "1234" {
			return nil, errors.New("wrong PIN")
		}
		return age.ParseX25519Identity(string(data))
	})
	return p.Main()
}

// usePlugin puts the plugin on the PATH and returns a recipient of it with its identity.
func usePlugin(t *testing.T) (recipient, identity string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(self, filepath.Join(dir, "age-plugin-backupdtest")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return plugin.EncodeRecipient("backupdtest", []byte(id.Recipient().String())),
		plugin.EncodeIdentity("backupdtest", []byte(id.String()))
}

// person answers each question with the same text.
func person(answer string, asked *[]string) *codec.Hand {
	return &codec.Hand{Say: func(string) {}, Secret: func(prompt string) (string, error) {
		*asked = append(*asked, prompt)
		if answer == "" {
			return "", errors.New("nobody is there")
		}
		return answer, nil
	}}
}

func keyFile(t *testing.T, raw []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// sshKey returns a key pair as ssh-keygen writes it.
func sshKey(t *testing.T, passphrase string) (public string, private []byte) {
	t.Helper()
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(priv, "me@host")
	if passphrase != "" {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(priv, "me@host", []byte(passphrase))
	}
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))), pem.EncodeToMemory(block)
}

// locked encrypts a file of identities with a passphrase.
func locked(t *testing.T, passphrase, text string, armored bool) []byte {
	t.Helper()
	r, err := age.NewScryptRecipient(passphrase)
	if err != nil {
		t.Fatal(err)
	}
	r.SetWorkFactor(10) // a test needs no second for it
	var out bytes.Buffer
	end, dst := io.Closer(io.NopCloser(nil)), io.Writer(&out)
	if armored {
		a := armor.NewWriter(&out)
		end, dst = a, a
	}
	w, err := age.Encrypt(dst, r)
	if err == nil {
		_, err = io.WriteString(w, text)
	}
	if err := errors.Join(err, w.Close(), end.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestHand: a person decrypts with every kind of key that age knows, and a daemon with
// none but age's own.
func TestHand(t *testing.T) {
	id, _ := identity(t)
	recipient := id.Recipient().String()
	toPlugin, plugged := usePlugin(t)
	public, private := sshKey(t, "")
	lockedPublic, lockedPrivate := sshKey(t, "1234")
	for name, c := range map[string]struct {
		recipient string
		file      []byte
		asks      bool
	}{
		"Plain":         {recipient, []byte("# mine\n" + id.String() + "\n"), false},
		"Plugin":        {toPlugin, []byte(plugged + "\n"), true},
		"SSH":           {public + " me@host", private, false},
		"SSHLocked":     {lockedPublic, lockedPrivate, true},
		"Locked":        {recipient, locked(t, "1234", id.String()+"\n", false), true},
		"LockedArmored": {recipient, locked(t, "1234", id.String()+"\n", true), true},
		"LockedPlugin":  {toPlugin, locked(t, "1234", plugged+"\n", true), true},
	} {
		t.Run(name, func(t *testing.T) {
			var asked []string
			h := person("1234", &asked)
			to, err := h.ParseRecipients([]string{c.recipient}, nil)
			if err != nil {
				t.Fatal(err)
			}
			plain, o := sample(70_000), codec.Options{Compress: codec.Zstd, Recipients: to}
			stored, want := encode(t, plain, o)
			file := keyFile(t, c.file)
			ids, err := h.ReadIdentities([]string{file})
			if err != nil {
				t.Fatal(err)
			}
			if got, err := decode(stored, o, want, ids); err != nil || !bytes.Equal(got, plain) {
				t.Errorf("decrypt: %d bytes, %v", len(got), err)
			}
			if (len(asked) > 0) != c.asks {
				t.Errorf("asked %q", asked)
			}
			if slices.ContainsFunc(to.Strings(), func(s string) bool { return strings.Contains(s, "me@host") }) {
				t.Errorf("the manifest would record %q", to.Strings())
			}
			if name == "Plain" {
				return
			}
			_, err = codec.ReadIdentities([]string{file})
			if err == nil || !strings.Contains(err.Error(), "by hand") {
				t.Errorf("a daemon reads it: %v", err)
			}
			if _, err := codec.ParseRecipients([]string{c.recipient}, nil); c.recipient != recipient &&
				(err == nil || !strings.Contains(err.Error(), "by hand")) {
				t.Errorf("a daemon encrypts to it: %v", err)
			}
		})
	}
}

// TestHand_Refused: what cannot be read is named, and no secret is.
func TestHand_Refused(t *testing.T) {
	id, _ := identity(t)
	secret := id.String()
	for name, c := range map[string]struct {
		file         []byte
		answer, want string
	}{
		"WrongPassphrase": {locked(t, "1234", secret, false), "12345", "wrong passphrase"},
		"Nobody":          {locked(t, "1234", secret, true), "", "protected by a passphrase: nobody is there"},
		"Typo":            {[]byte("# x\n" + secret[:30] + "X\n"), "x", "line 2 is no age identity"},
		"Nothing":         {[]byte("# x\n"), "x", "holds no identity"},
		"NoSSH": {[]byte("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"), "x",
			"no SSH key"},
		"LockedNonsense": {locked(t, "1234", secret[:40], false), "1234", "line 1 is no age identity"},
		"Large":          {bytes.Repeat([]byte("# x\n"), 1<<19), "x", "too large"},
	} {
		var asked []string
		file := keyFile(t, c.file)
		_, err := person(c.answer, &asked).ReadIdentities([]string{file})
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		} else if strings.Contains(err.Error(), secret[:20]) {
			t.Errorf("%s: the secret is in %v", name, err)
		}
	}
	if _, err := person("x", new([]string)).ReadIdentities([]string{"none"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	_, err := person("x", new([]string)).ReadIdentities([]string{secret})
	if err == nil || strings.Contains(err.Error(), secret[:20]) {
		t.Errorf("a secret key in place of a file: got %v", err)
	}
}
