package container

import (
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/members"
)

// Files that compose takes by themselves, if nobody names one: the first that is there.
var (
	composeFiles = []string{"compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml",
		"container-compose.yml", "container-compose.yaml", "podman-compose.yml", "podman-compose.yaml"}
	overrides = []string{"compose.override.yml", "compose.override.yaml", "docker-compose.override.yml",
		"docker-compose.override.yaml"}
)

// checkBeside refuses a file that compose may take together with another one, or not at all.
func checkBeside(c *compose, services []string) error {
	base := path.Base(c.file)
	if names, ok := c.env["COMPOSE_FILE"]; ok && base != "" {
		list := strings.Split(names, ":")
		if len(list) != 1 || c.resolve(list[0]) != path.Join(c.dir, base) {
			return other(c, ".env", "its COMPOSE_FILE=%s names what compose takes", names)
		}
		return nil
	}
	rank := slices.Index(composeFiles, base)
	if slices.Contains(overrides, base) {
		return other(c, base, "it is an addition to another file")
	}
	if rank < 0 || c.o.ReadFile == nil {
		return nil // compose is told to take it
	}
	for _, name := range composeFiles[:rank] {
		if rank > 3 && slices.Index(composeFiles, name) > 3 {
			continue // other programs
		}
		if _, err := c.o.ReadFile(path.Join(c.dir, name)); err == nil {
			return other(c, name, "compose takes it, and not %s, if it is not told otherwise", base)
		}
	}
	for _, name := range overrides {
		raw, err := c.o.ReadFile(path.Join(c.dir, name))
		if err != nil {
			continue
		}
		if root, err := parse(raw); err != nil || concerns(root, services) {
			return other(c, name, "compose puts it over %s, if it is not told otherwise", base)
		}
	}
	return nil
}

// concerns reports whether an addition may change services.
func concerns(root *yaml.Node, services []string) bool {
	for _, p := range pairs(root) {
		if p.key != "services" && p.key != "version" && p.key != "name" && p.key != "networks" {
			return true
		}
	}
	return slices.ContainsFunc(pairs(get(root, "services")), func(p pair) bool { return slices.Contains(services, p.key) })
}

func other(c *compose, name, why string, args ...any) error {
	merged := "`docker compose config >merged.yaml`"
	return backup.WithHint(members.Position{File: path.Join(c.dir, name)}.Errorf(why, args...),
		"%s, with the -f that you start it with, writes in one file what compose makes of all: give that with --from", merged)
}

// checkCopies refuses a service that has not one container, and notes one that may have none.
func checkCopies(c *compose, s *members.Start, service *yaml.Node) error {
	for _, n := range []*yaml.Node{get(service, "scale"), get(get(service, "deploy"), "replicas")} {
		if n == nil {
			continue
		}
		w, err := c.text(n)
		if err != nil {
			return err
		}
		if w.Text != "1" {
			return w.At.Errorf("the service has %s containers, and a member has one", w.Text)
		}
	}
	if p := get(service, "profiles"); p != nil && len(p.Content) > 0 {
		s.Notes = append(s.Notes, members.Note{At: c.at(p), Text: "compose starts the service only with one of its profiles"})
	}
	return nil
}
