package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/olekukonko/tablewriter/tw"
	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/etcddb"
	"github.com/etcd-backupd/backupd/internal/etcddb/trailer"
)

func newSnapshotStatusCommand(a *app) *cobra.Command {
	var copies spoolFlags
	cmd := &cobra.Command{
		Use:   "status <filename>",
		Short: "Show what a snapshot file holds, and whether it is whole",
		Long: `Show what a snapshot file holds, and whether it is whole.

The numbers of "etcdutl snapshot status" are printed: hash, revision, total keys, total
size, version. --write-out=json and =fields add what etcdutl does not show: exact
revision, compact revision, HashKV, leases, alarms, auth, members. The SHA-256 trailer
is compared, and every page and record is checked in a child process. The file is never
modified.

"-" is standard input. It is copied to a temporary file first, in the folder --spool.

` + exitHelp,
		Example: `  backupd snapshot status /backup/etcd.db -w table
  backupd --write-out json snapshot status /backup/etcd.db
  age -d -i key.txt SNAPSHOT | zstd -d | backupd snapshot status -`,
		Args: arguments(1, "exactly one argument <filename>"),
		RunE: func(cmd *cobra.Command, args []string) error {
			in, err := a.openInput(cmd, args[0], copies.folder())
			if err != nil {
				return err
			}
			return errors.Join(in.explain(runSnapshotStatus(cmd.Context(), a, in.path)), in.close())
		},
	}
	copies.register(cmd, "copy of standard input")
	return cmd
}

// fileStatus has etcdutl's fields first, under etcdutl's names.
type fileStatus struct {
	Hash      uint32          `json:"hash"`
	Revision  backup.Revision `json:"revision"`
	TotalKey  int64           `json:"totalKey"`
	TotalSize int64           `json:"totalSize"`
	Version   string          `json:"version"`

	ExactRevision   backup.Revision `json:"exactRevision"`
	CompactRevision backup.Revision `json:"compactRevision"`
	HashKV          backup.HashKV   `json:"hashKV"`
	Leases          int64           `json:"leases"`
	Alarms          []backup.Alarm  `json:"alarms"`
	AuthEnabled     bool            `json:"authEnabled"`
	Users           int64           `json:"users"`
	Roles           int64           `json:"roles"`
	Members         []backup.Member `json:"members"`
	ClusterVersion  string          `json:"clusterVersion"`
	ConsistentIndex uint64          `json:"raftIndex"`
	RaftTerm        uint64          `json:"raftTerm"`
	SizeInUse       int64           `json:"sizeInUse"`
	HasTrailer      bool            `json:"hasHash"`
}

func runSnapshotStatus(ctx context.Context, a *app, path string) error {
	err := trailer.Verify(ctx, path, nil)
	hasTrailer := !errors.Is(err, trailer.ErrNone)
	if err != nil && hasTrailer {
		return err
	}
	f, err := etcddb.Inspect(ctx, path)
	if err != nil {
		return err
	}
	if !hasTrailer {
		a.log.slog.Warn("the file has no SHA-256 at its end: a copy from a data directory, or a snapshot that lost its end")
	}
	if why := etcddb.NewerWarning(f.StorageVersion, f.ClusterVersion); why != "" {
		a.log.slog.Warn("the file was not verified as a whole: " + why)
	}
	for _, why := range slices.Concat(f.Doubts, f.Cautions) {
		a.log.slog.Warn(why)
	}
	return printStatus(a, fileStatus{
		Hash: f.StatusHash, Revision: f.LastRecordRevision, TotalKey: f.TotalKeys, TotalSize: f.DatabaseBytes,
		Version:       f.StorageVersion,
		ExactRevision: f.Revision, CompactRevision: f.CompactRevision, HashKV: f.HashKV, Leases: f.Leases,
		Alarms: append([]backup.Alarm{}, f.Alarms...), AuthEnabled: f.AuthEnabled, Users: f.Users, Roles: f.Roles,
		Members: append([]backup.Member{}, f.Members...), ClusterVersion: f.ClusterVersion,
		ConsistentIndex: f.ConsistentIndex, RaftTerm: f.RaftTerm, SizeInUse: f.BytesInUse, HasTrailer: hasTrailer,
	})
}

func printStatus(a *app, s fileStatus) error {
	row := []string{fmt.Sprintf("%x", s.Hash), s.Revision.String(), fmt.Sprint(s.TotalKey),
		humanize.Bytes(uint64(s.TotalSize)), s.Version}
	switch a.global.writeOut {
	case "json":
		raw, err := json.Marshal(s)
		if err != nil {
			return fmt.Errorf("encode status: %w", err)
		}
		fmt.Fprintln(a.stdout, string(raw))
	case "table":
		header := []string{"hash", "revision", "total keys", "total size", "version"}
		return printTable(a.stdout, header, [][]string{row}, tw.AlignRight)
	case "fields":
		printStatusFields(a, s)
	default:
		fmt.Fprintln(a.stdout, strings.Join(row, ", "))
	}
	return nil
}

func printStatusFields(a *app, s fileStatus) {
	for _, f := range []struct {
		name  string
		value any
	}{
		{"Hash", s.Hash}, {"Revision", s.Revision}, {"Keys", s.TotalKey}, {"Size", s.TotalSize}, {"Version", s.Version},
		{"Exact revision", s.ExactRevision}, {"Compact revision", s.CompactRevision}, {"HashKV", s.HashKV.Hash},
		{"Leases", s.Leases}, {"Auth enabled", s.AuthEnabled}, {"Users", s.Users}, {"Roles", s.Roles},
		{"Cluster version", s.ClusterVersion}, {"Consistent index", s.ConsistentIndex}, {"Raft term", s.RaftTerm},
		{"Size in use", s.SizeInUse}, {"Has hash", s.HasTrailer},
	} {
		fmt.Fprintf(a.stdout, "%q : %v\n", f.name, f.value)
	}
	for _, al := range s.Alarms {
		fmt.Fprintf(a.stdout, "%q : %s of member %s\n", "Alarm", al.Type, al.MemberID)
	}
	for _, m := range s.Members {
		fmt.Fprintf(a.stdout, "%q : %s %s %s\n", "Member", m.ID, m.Name, strings.Join(m.PeerURLs, ","))
	}
}
