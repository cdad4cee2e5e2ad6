package codec

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"filippo.io/age/armor"
	"filippo.io/age/plugin"
	"golang.org/x/crypto/ssh"
)

// Hand reads the keys that need a person: those of plugins, which are programs that may
// ask for a PIN or a touch, SSH keys, and files that a passphrase protects. A daemon has no
// hand.
type Hand struct {
	// Secret asks for a passphrase or a PIN.
	Secret func(prompt string) (string, error)
	// Say shows what a plugin has to say.
	Say func(text string)
}

// maxKeyBytes bounds a file of keys.
const maxKeyBytes = 1 << 20

// ReadIdentities reads identity files of every kind that age knows.
func (h *Hand) ReadIdentities(files []string) (Identities, error) {
	var ids Identities
	for _, name := range files {
		raw, err := readKeys(name)
		if err != nil {
			return nil, err
		}
		parsed, err := h.identities(name, raw)
		if err != nil {
			return nil, err
		}
		ids = append(ids, parsed...)
	}
	return ids, nil
}

func readKeys(name string) ([]byte, error) {
	raw, err := readNamed("identity file", name)
	if err == nil && len(raw) > maxKeyBytes {
		err = fmt.Errorf("read identity file %s: it is too large for a file of keys", name)
	}
	return raw, err
}

// identities reads one file. No error of it quotes a line, which is a secret.
func (h *Hand) identities(name string, raw []byte) ([]age.Identity, error) {
	text := bytes.TrimSpace(raw)
	switch {
	case bytes.HasPrefix(text, []byte(armor.Header)):
		return h.unlock(name, armor.NewReader(bytes.NewReader(text)))
	case bytes.HasPrefix(raw, []byte("age-encryption.org/")):
		return h.unlock(name, bytes.NewReader(raw))
	case bytes.HasPrefix(text, []byte("-----BEGIN")):
		id, err := h.sshIdentity(name, raw)
		return []age.Identity{id}, err
	}
	return h.lines(name, raw)
}

// lines reads one identity a line.
func (h *Hand) lines(name string, raw []byte) ([]age.Identity, error) {
	var out []age.Identity
	for i, line := range strings.Split(string(raw), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		var ids []age.Identity
		var err error
		if strings.HasPrefix(line, "AGE-PLUGIN-") {
			var id age.Identity
			id, err = plugin.NewIdentity(line, h.ui())
			ids = append(ids, id)
		} else {
			ids, err = age.ParseIdentities(strings.NewReader(line))
		}
		if err != nil {
			return nil, fmt.Errorf("identity file %s: line %d is no age identity "+
				"(want the secret key that age-keygen prints or the identity of a plugin, "+
				"or an SSH key as the whole file)", name, i+1)
		}
		out = append(out, ids...)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("identity file %s holds no identity", name)
	}
	return out, nil
}

// unlock decrypts a file of identities with a passphrase.
func (h *Hand) unlock(name string, r io.Reader) ([]age.Identity, error) {
	passphrase, err := h.Secret("Passphrase for identity file " + name)
	if err != nil {
		return nil, fmt.Errorf("identity file %s is protected by a passphrase: %w", name, err)
	}
	id, err := age.NewScryptIdentity(passphrase)
	if err != nil {
		return nil, fmt.Errorf("identity file %s: %w", name, err)
	}
	plain, err := age.Decrypt(r, id)
	if errors.As(err, new(*age.NoIdentityMatchError)) {
		return nil, fmt.Errorf("identity file %s: wrong passphrase, or it is encrypted to a key", name)
	}
	if err != nil {
		return nil, fmt.Errorf("identity file %s: decrypt: %w", name, err)
	}
	raw, err := io.ReadAll(io.LimitReader(plain, maxKeyBytes))
	if err != nil {
		return nil, fmt.Errorf("identity file %s: decrypt: %w", name, err)
	}
	return h.lines(name, raw)
}

// sshIdentity reads an SSH key. If a passphrase protects it, the passphrase is asked for when
// something is encrypted to the key.
func (h *Hand) sshIdentity(name string, raw []byte) (age.Identity, error) {
	id, err := agessh.ParseIdentity(raw)
	var locked *ssh.PassphraseMissingError
	if err == nil {
		return id, nil
	}
	if !errors.As(err, &locked) {
		return nil, fmt.Errorf("identity file %s holds no SSH key that age knows (want ssh-ed25519 or ssh-rsa)", name)
	}
	public := locked.PublicKey
	if public == nil { // of the older formats
		raw, err := readKeys(name + ".pub")
		if err == nil {
			public, _, _, _, err = ssh.ParseAuthorizedKey(raw)
		}
		if err != nil {
			return nil, fmt.Errorf("identity file %s: its public key must be in %s.pub: %w", name, name, err)
		}
	}
	return agessh.NewEncryptedSSHIdentity(public, raw, func() ([]byte, error) {
		passphrase, err := h.Secret("Passphrase for SSH key " + name)
		return []byte(passphrase), err
	})
}

// ParseRecipients is the function of the same name, and also knows SSH keys (ssh-ed25519,
// ssh-rsa) and plugins (age1name1...).
func (h *Hand) ParseRecipients(keys, files []string) (Recipients, error) {
	return parseRecipients(keys, files, func(key string) (age.Recipient, error) {
		r, err := h.recipient(key)
		if err != nil {
			return nil, fmt.Errorf("recipient %q is not an age public key, a key of a plugin or an SSH key", key)
		}
		return r, nil
	})
}

func (h *Hand) recipient(key string) (age.Recipient, error) {
	switch {
	case strings.HasPrefix(key, "ssh-"):
		return agessh.ParseRecipient(key)
	case !strings.HasPrefix(key, "age1pq1") && strings.Count(key, "1") > 1:
		return plugin.NewRecipient(key, h.ui())
	}
	parsed, err := age.ParseRecipients(strings.NewReader(key))
	if err == nil && len(parsed) != 1 {
		err = errors.New("not one key")
	}
	if err != nil {
		return nil, err
	}
	return parsed[0], nil
}

// byHand says that a key is one that only a person can use, or nothing.
func byHand(key string) string {
	if _, err := new(Hand).recipient(key); err != nil {
		return ""
	}
	return "; SSH keys and plugins are for commands by hand"
}

// withoutComment is a recipient as the manifest records it: SSH keys end with a comment.
func withoutComment(key string) string {
	if fields := strings.Fields(key); len(fields) > 2 && strings.HasPrefix(key, "ssh-") {
		return fields[0] + " " + fields[1]
	}
	return key
}

// ui is how plugins talk to the person.
func (h *Hand) ui() *plugin.ClientUI {
	return &plugin.ClientUI{
		DisplayMessage: func(name, message string) error {
			h.Say("age-plugin-" + name + ": " + message)
			return nil
		},
		RequestValue: func(name, prompt string, _ bool) (string, error) {
			return h.Secret("age-plugin-" + name + ": " + prompt)
		},
		Confirm: func(name, prompt, yes, no string) (bool, error) {
			choice := fmt.Sprintf("Enter for %q", yes)
			if no != "" {
				choice += fmt.Sprintf(", n for %q", no)
			}
			answer, err := h.Secret(fmt.Sprintf("age-plugin-%s: %s (%s)", name, prompt, choice))
			return answer != "n", err
		},
		WaitTimer: func(name string) { h.Say("age-plugin-" + name + " waits, perhaps for a touch of the key") },
	}
}
