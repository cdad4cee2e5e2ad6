package manifests

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// TestWorkflows: what runs elsewhere is what can be run here, with the same compiler.
func TestWorkflows(t *testing.T) {
	const dir = "../../.github/workflows"
	pinned := regexp.MustCompile(`golang:([0-9.]+)-`).FindStringSubmatch(read(t, deploy+"/container/Dockerfile"))
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	ours := []string{".ci/run", "deploy/release/release.sh build dist", "deploy/release/release.sh notes > notes.md"}
	var ran []string
	for _, entry := range entries {
		var workflow struct {
			Permissions map[string]string
			Jobs        map[string]struct {
				Steps []struct {
					Uses, Run string
					With      map[string]string
				}
			}
		}
		if err := yaml.Unmarshal([]byte(read(t, filepath.Join(dir, entry.Name()))), &workflow); err != nil {
			t.Fatal(err)
		}
		if len(workflow.Permissions) != 1 || workflow.Permissions["contents"] == "" {
			t.Errorf("%s may do %v", entry.Name(), workflow.Permissions)
		}
		for _, job := range workflow.Jobs {
			for _, step := range job.Steps {
				command := strings.TrimPrefix(step.Run, `sudo env "PATH=$PATH" "HOME=$HOME" `)
				ran = append(ran, command)
				// Only the upload is no command of the project.
				if command != "" && !slices.Contains(ours, command) && !strings.HasPrefix(command, "gh release create ") {
					t.Errorf("%s runs %s", entry.Name(), step.Run)
				}
				if version := step.With["go-version"]; strings.Contains(step.Uses, "setup-go") && version != pinned[1] {
					t.Errorf("%s has Go %s, the Dockerfile %s", entry.Name(), version, pinned[1])
				}
			}
		}
	}
	for _, command := range ours {
		if !slices.Contains(ran, command) {
			t.Errorf("no workflow runs %s", command)
		}
	}
}

// TestNothingIsPublished: as long as no version was cut, every page that names the image
// or a package says that it must be built.
func TestNothingIsPublished(t *testing.T) {
	if strings.Contains(read(t, "../../CHANGELOG.md"), "\n## v") {
		return // there is a release
	}
	said := regexp.MustCompile(`(?i)(nothing|no image|no package|the image) is (not )?published yet`)
	for _, page := range []string{
		"../../README.md", docs + "/container.md", docs + "/kubernetes.md", docs + "/systemd.md", docs + "/release.md",
	} {
		text := strings.ReplaceAll(read(t, page), "\n", " ")
		if !said.MatchString(text) || strings.Contains(text, "backupd@latest") {
			t.Errorf("%s does not say that nothing is published yet", page)
		}
	}
}
