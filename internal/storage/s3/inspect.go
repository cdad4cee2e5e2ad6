package s3

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// inspectTimeout bounds one question, which some services never answer.
const inspectTimeout = 20 * time.Second

// Inspect implements [storage.Inspector]. It reports how uploads are protected,
// whether listings of several pages work, and versioning, object lock and life-cycle
// rules of the bucket.
func (s *Store) Inspect(ctx context.Context, folder string) []backup.Finding {
	i := &inspector{bucket: s.bucket, features: s.service.currentFeatures()}
	return []backup.Finding{
		i.condition(),
		i.checksum(),
		i.pages(ctx, folder+"/"),
		i.versioning(ctx),
		i.lock(ctx),
		i.lifecycle(ctx),
	}
}

// inspector is one Inspect. Each of its methods finds out one thing.
type inspector struct {
	bucket   *bucket
	features features
}

func (i *inspector) condition() backup.Finding {
	const step = "conditional writes"
	if i.features.conditional {
		return backup.Finding{
			Subject: step, Level: backup.LevelOK, Text: "uploads require that the key is absent (If-None-Match)",
		}
	}
	return backup.Finding{
		Subject: step, Level: backup.LevelWarning,
		Text: "the service refuses conditions (If-None-Match), so backupd checks for the key before each upload; " +
			"two simultaneous uploads of one key could overwrite each other",
		Hint: "turn on the bucket's versioning, so that a replaced object can be restored",
	}
}

func (i *inspector) checksum() backup.Finding {
	f := backup.Finding{Subject: "checksums", Level: backup.LevelOK}
	switch i.features.checksum {
	case ChecksumSHA256:
		f.Text = "uploads carry a SHA-256 (x-amz-checksum-sha256)"
	case ChecksumMD5:
		f.Text = "uploads carry an MD5 (Content-MD5)"
	default:
		f.Level = backup.LevelWarning
		f.Text = "uploads carry no checksum except the one in their signature"
		f.Hint = "set the checksum to auto, unless the service refuses all"
	}
	return f
}

// pages compares a listing in one page with one of many.
func (i *inspector) pages(ctx context.Context, prefix string) backup.Finding {
	const step = "list pages"
	var listings [2][]string
	for n, pageKeys := range []int32{0, 2} {
		for o, err := range i.bucket.list(ctx, prefix, "", pageKeys) {
			if err != nil {
				return backup.Finding{
					Subject: step, Level: backup.LevelFailure, Text: err.Error(), Hint: todoOf(err, "s3:ListBucket"),
				}
			}
			listings[n] = append(listings[n], o.Key)
		}
	}
	if !slices.Equal(listings[0], listings[1]) {
		return backup.Finding{
			Subject: step, Level: backup.LevelFailure,
			Text: fmt.Sprintf("the same keys are listed as %q in one page and as %q in pages of two",
				listings[0], listings[1]),
			Hint: "do not use this service: backupd would overlook snapshots, and take them for missing",
		}
	}
	return backup.Finding{
		Subject: step, Level: backup.LevelOK,
		Text: "a listing in many pages names the same keys as one in a single page",
	}
}

func (i *inspector) versioning(ctx context.Context) backup.Finding {
	ctx, cancel := context.WithTimeout(ctx, inspectTimeout)
	defer cancel()
	f := backup.Finding{Subject: "versioning", Level: backup.LevelOK}
	out, err := i.bucket.client.GetBucketVersioning(ctx, &s3.GetBucketVersioningInput{Bucket: &i.bucket.name})
	switch {
	case err != nil:
		f.Text = fmt.Sprintf("not known: %v", i.bucket.explain(err))
		f.Hint = todoOf(i.bucket.explain(err), "s3:GetBucketVersioning")
	case out.Status == types.BucketVersioningStatusEnabled:
		f.Text = "on: deleted objects can be restored, and go on taking space"
		f.Hint = "let a life-cycle rule of the bucket remove old versions and delete markers"
	case out.Status == types.BucketVersioningStatusSuspended:
		f.Text = "suspended"
	default:
		f.Text = "off"
	}
	return f
}

func (i *inspector) lock(ctx context.Context) backup.Finding {
	ctx, cancel := context.WithTimeout(ctx, inspectTimeout)
	defer cancel()
	f := backup.Finding{Subject: "object lock", Level: backup.LevelOK}
	in := &s3.GetObjectLockConfigurationInput{Bucket: &i.bucket.name}
	out, err := i.bucket.client.GetObjectLockConfiguration(ctx, in)
	if err == nil && out.ObjectLockConfiguration == nil {
		out.ObjectLockConfiguration = &types.ObjectLockConfiguration{}
	}
	switch {
	case codeOf(err) == "ObjectLockConfigurationNotFoundError":
		f.Text = "off"
	case err != nil:
		f.Text = fmt.Sprintf("not known: %v", i.bucket.explain(err))
		f.Hint = todoOf(i.bucket.explain(err), "s3:GetBucketObjectLockConfiguration")
	case out.ObjectLockConfiguration.ObjectLockEnabled != types.ObjectLockEnabledEnabled:
		f.Text = "off"
	default:
		f.Text = "on: " + describeRetention(out.ObjectLockConfiguration.Rule)
	}
	return f
}

func describeRetention(rule *types.ObjectLockRule) string {
	if rule == nil || rule.DefaultRetention == nil {
		return "no default retention, so new objects are not locked"
	}
	d := rule.DefaultRetention
	if d.Years != nil {
		return fmt.Sprintf("new objects are locked for %d years (%s)", *d.Years, d.Mode)
	}
	days := int32(0)
	if d.Days != nil {
		days = *d.Days
	}
	return fmt.Sprintf("new objects are locked for %d days (%s)", days, d.Mode)
}

// todoOf advises to allow an action, if that is what is missing.
func todoOf(err error, action string) string {
	if errors.Is(err, fs.ErrPermission) {
		return "allow the credentials " + action + " on the bucket"
	}
	return ""
}
