// Package manifests tests what is in deploy: everything for Kubernetes is rendered
// with the real kustomize and Helm libraries, decoded strictly, and applied to a real API
// server by the commands that the page for Kubernetes shows; units are looked
// at by systemd-analyze, rules and queries by promtool, and every configuration in it
// by "backupd config check". An API server also goes through the loss and the restore of its
// etcd.
//
// It is a module of its own, for Helm and the Kubernetes types are large:
//
//	go -C test/manifests test -count=1 ./...
package manifests
