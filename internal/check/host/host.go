// Package host finds the etcd servers of this host and where their data lies, as far as
// this process may look. A spool or a repository on the same file system can take the room that they need.
package host

import (
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/etcd-backupd/backupd/internal/disk"
)

// Data is a folder into which an etcd of this host writes.
type Data struct {
	Path     string
	Files    disk.FileSystem
	Database int64 // bytes of the database in it; 0 if that is not seen
}

// usual are the folders of common installations: packages and kubeadm, k3s, RKE2, k0s,
// minikube.
var usual = []string{
	"var/lib/etcd", "var/lib/rancher/k3s/server/db/etcd", "var/lib/rancher/rke2/server/db/etcd", "var/lib/k0s/etcd",
	"var/lib/minikube/etcd",
}

// Find returns the data of the running etcd servers, and of the usual places that exist.
// root is where the host's files are, usually /.
func Find(root string) []Data {
	var out []Data
	seen := map[string]bool{}
	add := func(name, path string) {
		fs, err := disk.FileSystemOf(path)
		if err != nil || seen[name] {
			return // not there, or not ours to look at
		}
		seen[name] = true
		d := Data{Path: name, Files: fs}
		if info, err := os.Stat(filepath.Join(path, "member", "snap", "db")); err == nil {
			d.Database = info.Size()
		}
		out = append(out, d)
	}
	processes, _ := filepath.Glob(filepath.Join(root, "proc", "[0-9]*")) // the pattern is right
	for _, p := range processes {
		for _, dir := range foldersOf(p) {
			// The path is that of the process, which may be in a container.
			inside := filepath.Join(p, "root", dir)
			if _, err := os.Stat(inside); err != nil {
				inside = filepath.Join(root, dir)
			}
			add(dir, inside)
		}
	}
	for _, dir := range usual {
		add("/"+dir, filepath.Join(root, dir))
	}
	return out
}

// foldersOf returns the folders of a process, given by its folder in /proc, or nil if it
// is no etcd.
func foldersOf(process string) []string {
	raw, err := os.ReadFile(filepath.Join(process, "cmdline"))
	args := strings.Split(strings.TrimRight(string(raw), "\x00"), "\x00")
	if err != nil || filepath.Base(args[0]) != "etcd" {
		return nil
	}
	settings := map[string]string{}
	if env, err := os.ReadFile(filepath.Join(process, "environ")); err == nil {
		for _, kv := range strings.Split(string(env), "\x00") {
			name, value, _ := strings.Cut(kv, "=")
			if key, ok := strings.CutPrefix(name, "ETCD_"); ok && value != "" {
				settings[strings.ToLower(strings.ReplaceAll(key, "_", "-"))] = value
			}
		}
	}
	for i, arg := range args[1:] {
		name, value, ok := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		if !ok && i+2 < len(args) {
			value = args[i+2]
		}
		if strings.HasPrefix(arg, "-") {
			settings[name] = value
		}
	}
	cwd, err := os.Readlink(filepath.Join(process, "cwd"))
	if err != nil {
		cwd = "/"
	}
	absolute := func(path string) string {
		if filepath.IsAbs(path) {
			return path
		}
		return filepath.Join(cwd, path)
	}
	if file := settings["config-file"]; file != "" {
		settings = fromFile(filepath.Join(process, "root", absolute(file))) // etcd then ignores all others
	}
	data := settings["data-dir"]
	if data == "" {
		name := settings["name"]
		if name == "" {
			name = "default"
		}
		data = name + ".etcd"
	}
	out := []string{absolute(data)}
	if wal := settings["wal-dir"]; wal != "" {
		out = append(out, absolute(wal))
	}
	return out
}

// fromFile reads the settings that matter from a configuration of etcd's.
func fromFile(path string) map[string]string {
	var conf struct {
		Name string `yaml:"name"`
		Data string `yaml:"data-dir"`
		WAL  string `yaml:"wal-dir"`
	}
	if raw, err := os.ReadFile(path); err == nil {
		_ = yaml.Unmarshal(raw, &conf) // what cannot be read is not known
	}
	return map[string]string{"name": conf.Name, "data-dir": conf.Data, "wal-dir": conf.WAL}
}

// Beside returns the data that lies on a file system.
func Beside(fs disk.FileSystem, all []Data) []Data {
	var out []Data
	for _, d := range all {
		if fs.Shares(d.Files) {
			out = append(out, d)
		}
	}
	return out
}

// IsLocal reports whether an endpoint is an address of this host.
func IsLocal(endpoint string) bool {
	u, err := url.Parse(endpoint)
	if err != nil {
		return false
	}
	host := u.Hostname()
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	if ip == nil || ip.IsLoopback() {
		return ip != nil
	}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok && n.IP.Equal(ip) {
			return true
		}
	}
	return false
}
