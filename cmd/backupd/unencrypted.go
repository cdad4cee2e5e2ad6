package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/repository"
)

// encodingFlags say how new snapshots are stored.
type encodingFlags struct {
	recipients     []string
	recipientFiles []string
	unencrypted    bool
	compression    string
}

// encodingNames are the flags that a configuration replaces.
var encodingNames = []string{"recipient", "recipients-file", "unencrypted", "compression"}

func (e *encodingFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVar(&e.recipients, "recipient", nil,
		"age public key to encrypt to: age1... or age1pq1... (repeatable)")
	f.StringArrayVar(&e.recipientFiles, "recipients-file", nil,
		"file with age public keys, one per line (repeatable)")
	f.BoolVar(&e.unencrypted, "unencrypted", false,
		"store this snapshot in plain text although the one before it is encrypted")
	f.StringVar(&e.compression, "compression", "zstd", "compression: zstd, none")
	mustRegister(cmd.RegisterFlagCompletionFunc("compression", fixed("zstd", "none")))
}

func (e *encodingFlags) codec(a *app) (codec.Options, error) {
	recipients, err := a.hand().ParseRecipients(e.recipients, e.recipientFiles)
	if err != nil {
		return codec.Options{}, &usageError{err}
	}
	if e.unencrypted && recipients.Len() > 0 {
		return codec.Options{}, &usageError{errors.New("--unencrypted and recipients exclude each other")}
	}
	compression, err := codec.ParseCompression(e.compression)
	if err != nil {
		return codec.Options{}, &usageError{err}
	}
	return codec.Options{Compress: compression, Recipients: recipients}, nil
}

// refusePlain refuses to store in plain text where the newest snapshot that can be
// read is encrypted: a flag may have been forgotten, and the store may be read by others.
func (e *encodingFlags) refusePlain(cmd *cobra.Command, all repository.Timelines) error {
	if len(e.recipients)+len(e.recipientFiles) > 0 || e.unencrypted || len(all) == 0 || all[0].Manifest == nil {
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
	args := cmd.Flags().Args()
	return withHints(&backup.RefusedError{Reason: fmt.Sprintf(
		"snapshot %s of cluster %s is encrypted, and this one would not be: no recipient was given",
		before.ID, before.Cluster)},
		"to encrypt to the same recipients: "+
			commandWith(cmd, []string{"companions-unencrypted"}, append(recipients, args...)...),
		"to store this one in plain text all the same: "+
			commandWith(cmd, nil, append([]string{"--unencrypted"}, args...)...))
}
