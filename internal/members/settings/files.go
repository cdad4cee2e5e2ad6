package settings

import (
	"path/filepath"
	"slices"
	"strings"
)

// NamedFile is a file that a server needs at its start, besides those of its data.
type NamedFile struct {
	Setting
	// Path is the file on the host. It is empty if that is not known: it is relative to a folder that
	// no file says, or in a container where no folder of the host is mounted.
	Path string
}

// certificates are the settings that name files for TLS.
var certificates = []string{
	"cert-file", "key-file", "client-cert-file", "client-key-file", "trusted-ca-file", "client-crl-file",
	"peer-cert-file", "peer-key-file", "peer-client-cert-file", "peer-client-key-file", "peer-trusted-ca-file",
	"peer-crl-file", "discovery-cacert", "discovery-cert", "discovery-key",
}

// Files returns the files that settings name: certificates, keys, lists of revoked ones.
func Files(h *Host) (out []NamedFile) {
	for _, s := range h.Settings {
		var names []string
		switch {
		case slices.Contains(certificates, s.Name):
			names = []string{s.Value}
		case s.Name == "auth-token":
			for _, option := range strings.Split(s.Value, ",") {
				if key, name, _ := strings.Cut(option, "="); key == "pub-key" || key == "priv-key" {
					names = append(names, name)
				}
			}
		}
		for _, name := range names {
			if name != "" {
				out = append(out, NamedFile{s, onHost(h, s, name)})
			}
		}
	}
	return out
}

func onHost(h *Host, s Setting, name string) string {
	if !filepath.IsAbs(name) && !filepath.IsAbs(h.Dir.Text) {
		return ""
	}
	path := h.ground().absolute(name)
	if !h.Contained {
		return path
	}
	path, err := h.ground().outside(aFile, path, s.At)
	if err != nil {
		return "" // Kubernetes has it, or the image
	}
	return path
}
