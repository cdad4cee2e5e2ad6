// Package manifests tests what is in deploy: everything for Kubernetes is rendered
// with the real kustomize and Helm libraries and decoded strictly, units are looked
// at by systemd-analyze, rules and queries by promtool, and every configuration in it
// by "backupd config check".
//
// It is a module of its own, for Helm and the Kubernetes types are large:
//
//	go -C test/manifests test -count=1 ./...
package manifests
