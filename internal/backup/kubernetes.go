package backup

import "fmt"

// Kubernetes is what a database holds of a Kubernetes API server, below its default prefix
// /registry/.
type Kubernetes struct {
	Objects      int64 `json:"objects"`      // the live keys
	PlainSecrets int64 `json:"plainSecrets"` // the Secrets that are not encrypted
	// Keys are those that an API server needs to read what is encrypted.
	Keys []EncryptionKey `json:"encryptionKeys,omitempty"`
}

// EncryptionKey is a key of --encryption-provider-config, as each encrypted value names it.
type EncryptionKey struct {
	Provider string `json:"provider"`
	Name     string `json:"name"`
	Objects  int64  `json:"objects"` // the live values that need it
}

// Notes say what is needed besides the data.
func (k *Kubernetes) Notes() []string {
	if k == nil { // nothing of Kubernetes is there
		return nil
	}
	var out []string
	for _, key := range k.Keys {
		which := fmt.Sprintf("the key %q", key.Name)
		if key.Name == "" {
			which = "a key whose name is not known,"
		}
		out = append(out, fmt.Sprintf("%d objects of Kubernetes are encrypted: an API server reads them only with %s "+
			"of the provider %q in its --encryption-provider-config", key.Objects, which, key.Provider))
	}
	return out
}
