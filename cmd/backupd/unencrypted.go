package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
)

// refuseUnencrypted refuses to store in plain text where the newest snapshot that can be
// read is encrypted: a flag may have been forgotten, and the store may be read by others.
func refuseUnencrypted(cmd *cobra.Command, o backupOptions, all repository.Timelines) error {
	if len(o.recipients)+len(o.recipientFiles) > 0 || o.unencrypted || len(all) == 0 || all[0].Manifest == nil {
		return nil
	}
	before := all[0].Manifest
	if before.Encoding.Encryption == "" {
		return nil
	}
	var recipients []string
	for _, r := range before.Encoding.Recipients {
		recipients = append(recipients, "--recipient="+r)
	}
	return withHints(&backup.RefusedError{Reason: fmt.Sprintf(
		"snapshot %s of cluster %s is encrypted, and this one would not be: no recipient was given",
		before.ID, before.Cluster)},
		"to encrypt to the same recipients: "+commandWith(cmd, []string{"companions-unencrypted"}, recipients...),
		"to store this one in plain text all the same: "+commandWith(cmd, nil, "--unencrypted"))
}
