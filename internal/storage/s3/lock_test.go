package s3_test

import (
	"errors"
	"io/fs"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestDelete_Locked asks the real server to delete what it has locked.
func TestDelete_Locked(t *testing.T) {
	server := testserver.StartS3(t)
	client := plainClient(server)
	server.Bucket += "-locked" // not the bucket of StartS3, which has no locks
	in := &awss3.CreateBucketInput{Bucket: &server.Bucket, ObjectLockEnabledForBucket: aws.Bool(true)}
	if _, err := client.CreateBucket(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	s := open(t, options(t, server))
	for _, key := range []string{"held", "retained", "free"} {
		if err := s.Create(t.Context(), key, stream(content(small))); err != nil {
			t.Fatal(err)
		}
	}
	_, err := client.PutObjectLegalHold(t.Context(), &awss3.PutObjectLegalHoldInput{
		Bucket: &server.Bucket, Key: aws.String("some/prefix/held"),
		LegalHold: &types.ObjectLockLegalHold{Status: types.ObjectLockLegalHoldStatusOn},
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.PutObjectRetention(t.Context(), &awss3.PutObjectRetentionInput{
		Bucket: &server.Bucket, Key: aws.String("some/prefix/retained"),
		Retention: &types.ObjectLockRetention{
			Mode: types.ObjectLockRetentionModeCompliance, RetainUntilDate: aws.Time(time.Now().Add(time.Hour)),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"held", "retained"} {
		if err := s.Delete(t.Context(), key); !errors.Is(err, storage.ErrLocked) || errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s: got error %v", key, err)
		}
		if _, err := s.Stat(t.Context(), key); err != nil {
			t.Errorf("%s: %v", key, err)
		}
	}
	if err := s.Delete(t.Context(), "free"); err != nil {
		t.Error(err)
	}
}

// TestDelete_LockedOrForbidden: the answers of services, word by word.
func TestDelete_LockedOrForbidden(t *testing.T) {
	for name, c := range map[string]struct {
		answer fault
		locked bool
	}{
		"Amazon":         {answer(403, "AccessDenied", "Access Denied because object protected by object lock."), true},
		"MinIO":          {answer(400, "InvalidRequest", "Object is WORM protected and cannot be overwritten"), true},
		"MinIOLegalHold": {answer(403, "AccessDenied", "object is under legal hold"), true},
		"Google": {
			answer(403, "RetentionPolicyNotMet", "Object 'b/o' is subject to bucket's retention policy"), true,
		},
		"GoogleHold": {answer(403, "ObjectUnderActiveHold", "Object is under active Temporary hold"), true},
		"Alibaba":    {answer(403, "FileImmutable", "The file is immutable."), true},
		"Forbidden":  {answer(403, "AccessDenied", "Access Denied"), false},
		"NotOurPermission": {
			answer(403, "AccessDenied", "User: arn:aws:iam::1:user/x is not authorized to perform: s3:DeleteObject"),
			false,
		},
		"WrongKey": {answer(403, "InvalidAccessKeyId", "no such key, and no object lock"), false},
	} {
		t.Run(name, func(t *testing.T) {
			p := startProxy(t)
			p.fail("DeleteObject", c.answer, c.answer) // it may be tried once more
			err := p.open(t).Delete(t.Context(), "key")
			if errors.Is(err, storage.ErrLocked) != c.locked || errors.Is(err, fs.ErrPermission) == c.locked ||
				err == nil {
				t.Errorf("got error %v", err)
			}
		})
	}
}
