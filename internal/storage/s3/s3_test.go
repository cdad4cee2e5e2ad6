package s3_test

import (
	"context"
	"testing"

	"github.com/aws/aws-sdk-go-v2/credentials"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/s3"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// options reach a bucket of the real server.
func options(t *testing.T, server *testserver.S3) s3.Options {
	t.Helper()
	isolate(t)
	t.Setenv("AWS_ACCESS_KEY_ID", server.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", server.SecretKey)
	return s3.Options{
		Bucket: server.Bucket, Endpoint: server.Endpoint, Region: server.Region, CAFile: server.CAFile,
		Prefix: "some/prefix", PartBytes: 5 << 20,
	}
}

// isolate keeps the developer's own AWS configuration out of a test.
func isolate(t *testing.T) {
	t.Helper()
	for _, name := range []string{
		"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION",
		"AWS_DEFAULT_REGION",
		"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_CA_BUNDLE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN",
		"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI",
	} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_CONFIG_FILE", "/dev/null")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
}

func open(t *testing.T, o s3.Options) *s3.Store {
	t.Helper()
	s, err := s3.New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// checkNoUploads fails the test at its end if parts of an upload are left.
func checkNoUploads(t *testing.T, server *testserver.S3) {
	t.Helper()
	t.Cleanup(func() {
		for _, key := range uploads(t, server) {
			t.Errorf("an upload of %s was left open", key)
		}
	})
}

// uploads asks the server, without the code under test.
func uploads(t *testing.T, server *testserver.S3) []string {
	t.Helper()
	// The test's own context has ended when clean-ups run.
	ctx := context.WithoutCancel(t.Context())
	page, err := plainClient(server).ListMultipartUploads(ctx, &awss3.ListMultipartUploadsInput{Bucket: &server.Bucket})
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, u := range page.Uploads {
		keys = append(keys, *u.Key)
	}
	return keys
}

func plainClient(server *testserver.S3) *awss3.Client {
	return awss3.New(awss3.Options{
		BaseEndpoint: &server.Endpoint, Region: server.Region, UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(server.AccessKey, server.SecretKey, ""),
	})
}

func TestStore(t *testing.T) {
	testserver.StartS3(t) // one server for all subtests
	storagetest.Run(t, func(t *testing.T) storage.Store {
		server := testserver.StartS3(t)
		checkNoUploads(t, server)
		return open(t, options(t, server))
	})
}
