package s3

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// lifecycle warns of rules of the bucket that remove objects of the repository by their
// age, or move them to where they cannot be read. They know nothing of snapshots, and meet
// the oldest object first: the marker.
func (i *inspector) lifecycle(ctx context.Context) backup.Finding {
	ctx, cancel := context.WithTimeout(ctx, inspectTimeout)
	defer cancel()
	f := backup.Finding{Subject: "life-cycle rules", Level: backup.LevelOK}
	in := &s3.GetBucketLifecycleConfigurationInput{Bucket: &i.bucket.name}
	out, err := i.bucket.client.GetBucketLifecycleConfiguration(ctx, in)
	if codeOf(err) == "NoSuchLifecycleConfiguration" {
		f.Text = "none"
		return f
	}
	if err != nil {
		f.Text = fmt.Sprintf("not known: %v", i.bucket.explain(err))
		f.Hint = todoOf(i.bucket.explain(err), "s3:GetLifecycleConfiguration")
		return f
	}
	var harmful []string
	for _, rule := range out.Rules {
		if rule.Status == types.ExpirationStatusEnabled && meets(&rule, i.bucket.prefix) {
			harmful = append(harmful, harmOf(&rule)...)
		}
	}
	if len(harmful) == 0 {
		f.Text = "none removes or archives current objects of the repository"
		return f
	}
	f.Level, f.Text = backup.LevelWarning, strings.Join(harmful, "; ")
	f.Hint = "let backupd's retention alone remove snapshots: take the repository's prefix out of these rules. A rule " +
		"that removes old versions (NoncurrentVersionExpiration) or unfinished uploads does no harm"
	return f
}

// meets reports whether a rule may be about objects below a prefix. backupd tags none, so
// one for tagged objects is not.
func meets(rule *types.LifecycleRule, prefix string) bool {
	//lint:ignore SA1019 rules of older buckets still have it
	of := aws.ToString(rule.Prefix)
	if f := rule.Filter; f != nil {
		and := cmp.Or(f.And, &types.LifecycleRuleAndOperator{})
		if f.Tag != nil || len(and.Tags) > 0 {
			return false
		}
		of = cmp.Or(of, aws.ToString(f.Prefix), aws.ToString(and.Prefix))
	}
	return strings.HasPrefix(of, prefix) || strings.HasPrefix(prefix, of)
}

// harmOf says what a rule does to objects that are still in use.
func harmOf(rule *types.LifecycleRule) []string {
	name := cmp.Or(aws.ToString(rule.ID), "without a name")
	var out []string
	if e := rule.Expiration; e != nil && (e.Days != nil || e.Date != nil) {
		out = append(out, fmt.Sprintf("rule %s deletes objects %s, also those of snapshots that must stay, and "+
			"%s first", name, when(e.Days, e.Date), backup.MarkerKey))
	}
	archives := []types.TransitionStorageClass{
		types.TransitionStorageClassGlacier, types.TransitionStorageClassDeepArchive,
	}
	for _, t := range rule.Transitions {
		if slices.Contains(archives, t.StorageClass) {
			out = append(out, fmt.Sprintf("rule %s moves objects to %s %s, where they cannot be read until somebody "+
				"restores them, and %s first", name, t.StorageClass, when(t.Days, t.Date), backup.MarkerKey))
		}
	}
	return out
}

func when(days *int32, date *time.Time) string {
	if days != nil {
		return fmt.Sprintf("after %d days", *days)
	}
	return "from " + aws.ToTime(date).UTC().Format(time.DateOnly) + " on"
}
