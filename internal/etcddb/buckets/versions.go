package buckets

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// version is one of etcd's, without the patch. It orders as versions do.
type version struct{ major, minor int64 }

func (v version) String() string { return fmt.Sprintf("%d.%d", v.major, v.minor) }

func (v version) less(w version) bool {
	return v.major < w.major || v.major == w.major && v.minor < w.minor
}

// near reports whether both are the same or neighbours: a cluster that is upgraded or
// downgraded stores its two versions one after the other.
func (v version) near(w version) bool {
	return v.major == w.major && max(v.minor-w.minor, w.minor-v.minor) <= 1
}

var (
	// oldestStorage is the oldest version from which etcd knows a way to a later one
	// (etcd server/storage/schema/schema.go).
	oldestStorage = version{3, 5}
	oldestCluster = version{3, 0}
	// newestKnown is the newest version whose servers were read for this package.
	newestKnown = version{3, 7}
)

// parseVersion parses a version as etcd stores it, which is without a patch: 3.6.0. A
// server that reads another patch as the version of the cluster serves nobody.
func parseVersion(key, s string) (version, error) {
	var n [3]int64
	parts := strings.Split(s, ".")
	ok := len(parts) == len(n)
	for i := 0; ok && i < len(n); i++ {
		var err error
		n[i], err = strconv.ParseInt(parts[i], 10, 64)
		ok = err == nil && parts[i] == strconv.FormatInt(n[i], 10)
	}
	if !ok || n[2] != 0 || n[0] < 0 || n[1] < 0 {
		return version{}, fmt.Errorf("%s %q is not a version of etcd", key, clip([]byte(s)))
	}
	return version{n[0], n[1]}, nil
}

func (c *Contents) readCluster(key string, value []byte) error {
	switch key {
	case clusterVersion:
		c.ClusterVersion = string(value)
		_, err := parseVersion(key, c.ClusterVersion)
		return err
	case downgrade:
		return checkDowngrade(value)
	}
	return nil
}

// checkDowngrade decodes etcd's DowngradeInfo
// (etcd server/etcdserver/version/downgrade.go).
func checkDowngrade(value []byte) error {
	var d struct {
		TargetVersion string `json:"target-version"`
		Enabled       bool   `json:"enabled"`
	}
	if err := json.Unmarshal(value, &d); err != nil {
		return fmt.Errorf("%s: decode: %w", downgrade, err)
	}
	if !d.Enabled {
		return nil
	}
	_, err := parseVersion(downgrade, d.TargetVersion)
	return err
}

// checkVersions refuses versions with which no server starts. A later etcd than this
// package knows is not refused, if both versions agree that it is one.
func (c *Contents) checkVersions() error {
	storage, cluster := oldestStorage, oldestStorage
	var err error
	if c.ClusterVersion != "" {
		if cluster, err = parseVersion(clusterVersion, c.ClusterVersion); err != nil {
			return err
		}
	}
	if c.StorageVersion != "" {
		if storage, err = parseVersion(StorageVersion, c.StorageVersion); err != nil {
			return err
		}
	}
	switch {
	case storage.less(oldestStorage):
		return fmt.Errorf("bucket %q: %s %s: no etcd starts with it", Meta, StorageVersion, c.StorageVersion)
	case cluster.less(oldestCluster):
		return fmt.Errorf("bucket %q: %s %s: no etcd starts with it", Cluster, clusterVersion, c.ClusterVersion)
	case Newer(c.StorageVersion, c.ClusterVersion) != "" && !storage.near(cluster):
		return fmt.Errorf("bucket %q: %s %q contradicts bucket %q: %s %q, and etcd %s, the newest that is known here, "+
			"does not start with them", Meta, StorageVersion, c.StorageVersion, Cluster, clusterVersion,
			c.ClusterVersion, newestKnown)
	}
	return nil
}

// Newer returns the newest of the versions if it is newer than this package knows, else an
// empty string.
func Newer(versions ...string) string {
	if v := newest(versions); newestKnown.less(v) {
		return v.String()
	}
	return ""
}

// Newest returns the newest of the versions, as 3.7, or an empty string if there is none.
func Newest(versions ...string) string {
	if v := newest(versions); v != (version{}) {
		return v.String()
	}
	return ""
}

func newest(versions []string) (newest version) {
	for _, s := range versions {
		if v, err := parseVersion("", s); err == nil && newest.less(v) {
			newest = v
		}
	}
	return newest
}

// NewestKnown is the newest version of etcd that this package knows, as 3.7.
func NewestKnown() string { return newestKnown.String() }
