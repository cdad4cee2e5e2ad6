package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository/highwater"
	"github.com/etcd-backupd/backupd/internal/restore"
)

// autoBump is the word for a bump that backupd decides.
const autoBump = "auto"

// bumpFlag is --bump-revision: auto, or a number of revisions.
type bumpFlag struct {
	auto bool
	by   uint64
}

// String implements [pflag.Value].
func (b *bumpFlag) String() string {
	if b.auto {
		return autoBump
	}
	return strconv.FormatUint(b.by, 10)
}

// Set implements [pflag.Value].
func (b *bumpFlag) Set(text string) error {
	if text == autoBump {
		*b = bumpFlag{auto: true}
		return nil
	}
	by, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return fmt.Errorf("want auto, or a number of revisions: %w", errors.Unwrap(err))
	}
	*b = bumpFlag{by: by}
	return nil
}

// Type implements [pflag.Value].
func (b *bumpFlag) Type() string { return "auto|N" }

// registerBump registers the bump as etcdutl has it.
func (t *targetFlags) registerBump(cmd *cobra.Command) {
	f := cmd.Flags()
	f.Uint64Var(&t.bump.by, "bump-revision", 0, "how much to increase the latest revision after restore")
	f.BoolVar(&t.markCompacted, "mark-compacted", false,
		"mark the latest revision after restore as compacted (required if --bump-revision > 0, disallowed otherwise)")
}

// registerAutoBump registers a bump that is in force unless it is turned off.
func (t *targetFlags) registerAutoBump(cmd *cobra.Command) {
	f := cmd.Flags()
	t.bump.auto = true
	f.Var(&t.bump, "bump-revision", "how much to increase the latest revision after restore, and mark it as compacted; "+
		"auto: beyond all that the repository has seen of the cluster; 0: not at all")
	f.BoolVar(&t.markCompacted, "mark-compacted", false, "follows by itself from --bump-revision")
}

// markBump lets the compaction follow from the bump.
func (t *targetFlags) markBump(cmd *cobra.Command) error {
	bumped := t.bump.auto || t.bump.by > 0
	if cmd.Flags().Changed("mark-compacted") && t.markCompacted != bumped {
		return &usageError{fmt.Errorf("--mark-compacted=%t and --bump-revision=%s contradict each other: "+
			"leave --mark-compacted out", t.markCompacted, &t.bump)}
	}
	t.markCompacted = t.bump.by > 0
	return nil
}

// decideBump turns auto into a number, and says why it is that.
func decideBump(ctx context.Context, j *restoreJob) error {
	r := &j.request
	if !r.AutoBump || j.plan != nil {
		return nil
	}
	if by, ours := restore.TokenBump(r.Token); ours { // all its members have that
		r.BumpRevision, r.MarkCompacted = by, by > 0
		r.BumpReason = "the token says so"
		return nil
	}
	m := j.stored.manifest
	mark, err := highwater.Find(ctx, j.stored.in)
	if err != nil && !highwater.Unreadable(err) {
		return err
	}
	if r.Token != "" && j.site.OutputDir == "" {
		if mark, err = commonMark(j, mark); err != nil {
			return err
		}
	}
	r.BumpRevision, r.MarkCompacted = highwater.Bump(m, mark), true
	r.BumpReason = highwater.Reason(m, mark)
	return nil
}

// commonMark returns the mark for a token that was made up, which does not tell the other
// hosts by how much: it must be the same there, whatever the repository sees meanwhile. So
// the snapshot alone counts, unless the cluster has come further than half of the margin.
func commonMark(j *restoreJob, mark backup.Revision) (backup.Revision, error) {
	own := highwater.Own(j.stored.manifest)
	if mark < own+highwater.Margin/2 {
		return own, nil
	}
	by := highwater.Bump(j.stored.manifest, mark)
	return 0, withHints(&backup.RefusedError{Reason: fmt.Sprintf("the cluster was seen at revision %d, far beyond the "+
		"snapshot's %d, and the token %s does not tell the other hosts by how much to bump the revision: "+
		"members with different revisions hold different data", mark, j.stored.manifest.Revision, j.request.Token)},
		fmt.Sprintf("if no other member is restored yet, give all of them the same: %s",
			j.again(fmt.Sprintf("--bump-revision=%d", by))),
		"if one is, give what it has been given: its restore has said so")
}
