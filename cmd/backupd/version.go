package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// Set by the linker: -ldflags "-X main.buildVersion=v1.2.3 -X main.buildCommit=..."
var (
	buildVersion string
	buildCommit  string
)

type versionInfo struct {
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
	Etcd    string `json:"etcd"`
}

// version describes this build, by the linker's flags or else by the Go tool's
// record.
func version() versionInfo {
	v := versionInfo{
		Version: buildVersion, Commit: buildCommit, Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH,
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	if v.Version == "" {
		v.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && v.Commit == "" {
			v.Commit = s.Value
		}
	}
	for _, d := range info.Deps {
		if d.Path == "go.etcd.io/etcd/etcdutl/v3" {
			v.Etcd = d.Version
		}
	}
	if v.Version == "" {
		v.Version = "(devel)"
	}
	return v
}

// String returns the form that manifests record.
func (v versionInfo) String() string { return "backupd " + v.Version }

func newVersionCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Show the version and how it was built",
		Args:  arguments(0, "no argument"),
		RunE: func(*cobra.Command, []string) error {
			v := version()
			if printed, err := a.document(kindVersion, v); printed {
				return err
			}
			fmt.Fprintf(a.stdout, "backupd %s\n", v.Version)
			t := newColumns(a.stdout)
			if v.Commit != "" {
				t.row("commit", v.Commit)
			}
			t.row("etcd libraries", v.Etcd)
			t.row("built with", v.Go+" for "+v.OS+"/"+v.Arch)
			return t.flush()
		},
	}
}
