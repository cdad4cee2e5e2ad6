package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/cluster"
)

// registerStream registers the flags of a command that streams a member's database.
func registerStream(cmd *cobra.Command, a *app, allowNearQuota *bool) {
	f := cmd.Flags()
	f.BoolVar(allowNearQuota, "allow-near-quota", false,
		"begin although the database takes 95% of etcd's quota, which it must not reach during the stream")
	f.Var((*streamRate)(&a.global.MaxRate), "max-rate",
		"bound of the stream in bytes per second, such as 50MiB, at least 4MiB (default: no bound); "+
			"a snapshot whose history is compacted during its stream stays unconfirmed")
}

// streamRate is a flag for the bound of a stream.
type streamRate byteSize

func (r *streamRate) String() string { return fmt.Sprint(int64(*r)) }
func (r *streamRate) Type() string   { return "bytes" }

func (r *streamRate) Set(text string) error {
	if err := (*byteSize)(r).Set(text); err != nil {
		return err
	}
	if *r != 0 && *r < cluster.MinMaxRate {
		return errors.New("want at least 4MiB a second: while a stream is open etcd cannot reuse pages")
	}
	return nil
}
