package kubeapi

import (
	"encoding/json"
	"errors"
	"regexp"
	"strings"
)

// MaxData is how many bytes of data a Secret may have.
const MaxData = 1 << 20

// Secret is a Secret as somebody would write it: what a server adds to one is not there. Its JSON
// is what 'kubectl apply -f' takes, and is the same for the same Secret.
type Secret struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Metadata   Metadata          `json:"metadata"`
	Type       string            `json:"type,omitempty"`
	Immutable  *bool             `json:"immutable,omitempty"`
	Data       map[string][]byte `json:"data,omitempty"`
}

// Metadata are the name of a Secret, and what people and programs have noted of it.
type Metadata struct {
	Name        string            `json:"name"`
	Namespace   string            `json:"namespace"`
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// lastApplied is an annotation of kubectl with the whole Secret in it. It makes the next one.
const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

// dataKey is a key in the data, as API servers accept it.
var dataKey = regexp.MustCompile(`^[-._a-zA-Z0-9]{1,253}$`)

// parse returns the Secret of that name in an answer. Its errors go on after "answers".
func parse(raw []byte, namespace, name string) (*Secret, error) {
	var s Secret
	if err := json.Unmarshal(raw, &s); err != nil {
		return nil, errors.New("no Secret") // and the error would repeat a part of it
	}
	if s.APIVersion != "v1" || s.Kind != "Secret" {
		return nil, errors.New("no Secret")
	}
	if s.Metadata.Name != name || s.Metadata.Namespace != namespace {
		return nil, errors.New("another object than was asked for")
	}
	total := 0
	for key, value := range s.Data {
		if !dataKey.MatchString(key) || key == "." || strings.HasPrefix(key, "..") {
			return nil, errors.New("a Secret with a key that none can have")
		}
		total += len(value)
	}
	if total > MaxData {
		return nil, errors.New("a Secret with more data than one can have")
	}
	delete(s.Metadata.Annotations, lastApplied)
	return &s, nil
}

// JSON returns the Secret as a file.
func (s *Secret) JSON() []byte {
	raw, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		panic(err) // texts and bytes have no error
	}
	return append(raw, '\n')
}
