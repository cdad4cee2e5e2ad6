package s3

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/processcreds"
)

// fileLifetime is how long keys from a file are used before it is read again,
// so that rotating them needs no restart.
const fileLifetime = time.Minute

// fileCredentials reads one profile of a file in the shared credentials format.
type fileCredentials struct{ path, profile string }

// Retrieve implements [aws.CredentialsProvider].
func (f *fileCredentials) Retrieve(ctx context.Context) (aws.Credentials, error) {
	profile := f.profile
	if profile == "" {
		profile = "default"
	}
	shared, err := config.LoadSharedConfigProfile(ctx, profile, func(o *config.LoadSharedConfigOptions) {
		o.CredentialsFiles = []string{f.path}
		o.ConfigFiles = []string{} // nil would mean the default ones
	})
	if err != nil {
		return aws.Credentials{}, fmt.Errorf("read credentials file: %w", err)
	}
	creds := shared.Credentials
	switch {
	case creds.HasKeys():
	case shared.CredentialProcess != "":
		creds, err = processcreds.NewProvider(shared.CredentialProcess).Retrieve(ctx)
		if err != nil {
			return aws.Credentials{}, fmt.Errorf("run credential_process of %s: %w", f.path, err)
		}
	default:
		return aws.Credentials{}, fmt.Errorf(
			"read credentials file %s: profile %q has no aws_access_key_id and aws_secret_access_key", f.path, profile)
	}
	if again := time.Now().Add(fileLifetime); !creds.CanExpire || creds.Expires.After(again) {
		creds.CanExpire, creds.Expires = true, again
	}
	return creds, nil
}

// credentialsTimeout bounds one search for credentials. The SDK asks metadata
// services last, whose addresses may never answer.
const credentialsTimeout = 20 * time.Second

// guardedCredentials fails at once on a machine that never had credentials, and
// lets a request be retried where credentials cannot be renewed at the moment.
type guardedCredentials struct {
	inner aws.CredentialsProvider
	log   *slog.Logger
	had   atomic.Bool
}

// Retrieve implements [aws.CredentialsProvider].
func (g *guardedCredentials) Retrieve(ctx context.Context) (aws.Credentials, error) {
	if g.inner == nil {
		return aws.Credentials{}, &credentialsError{err: fmt.Errorf("none are configured")}
	}
	limited, cancel := context.WithTimeout(ctx, credentialsTimeout)
	defer cancel()
	creds, err := g.inner.Retrieve(limited)
	if err != nil {
		if ctx.Err() != nil {
			return creds, ctx.Err()
		}
		return creds, &credentialsError{err: err, transient: g.had.Load()}
	}
	if !g.had.Swap(true) {
		g.log.Debug("found S3 credentials", "source", creds.Source)
	}
	return creds, nil
}

type credentialsError struct {
	err       error
	transient bool
}

func (e *credentialsError) Error() string { return "no credentials: " + e.err.Error() }

// credentialsError has no Unwrap: an error inside, such as a timeout of a metadata
// service, would be taken for one of the request itself.

// RetryableError is asked for by the SDK's retryer.
func (e *credentialsError) RetryableError() bool { return e.transient }
