package s3

import (
	"context"
	"crypto/md5" // the protocol wants the key's MD5
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/secret"
)

// connect makes the bucket of o with its client. In spite of its name it
// connects to nothing.
func connect(ctx context.Context, o *Options) (*bucket, error) {
	cfg, err := o.config(ctx)
	if err != nil {
		return nil, err
	}
	client, err := newHTTPClient(o.CAFile, o.Logger, func(pool *x509.CertPool) aws.HTTPClient {
		return transport(cfg.HTTPClient, pool, o.ProgressTimeout)
	})
	if err != nil {
		return nil, err
	}
	b := newBucket(o)
	var endpoint string
	b.client = s3.NewFromConfig(cfg, func(so *s3.Options) {
		if o.Endpoint != "" {
			so.BaseEndpoint = &o.Endpoint
		}
		endpoint = aws.ToString(so.BaseEndpoint) // may also come from the environment
		so.UsePathStyle = o.PathStyle == PathStyleOn || o.PathStyle == "" && endpoint != ""
		if so.Region == "" && endpoint != "" {
			so.Region = "us-east-1" // of no meaning there, but part of the signature
		}
		cfg.Region = so.Region
		so.Credentials = &guardedCredentials{inner: so.Credentials, log: o.Logger}
		so.HTTPClient = client
		so.Retryer = b.attempts.retryer()
		// Each body gets an explicit checksum. By itself the SDK would send chunked
		// bodies with trailers, which many services refuse.
		so.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
		so.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
		so.DisableLogOutputChecksumValidationSkipped = true
		so.APIOptions = append(so.APIOptions, unsignAcceptEncoding, b.attempts.limit, onceMore)
	})
	if err := checkEndpoint(endpoint); err != nil {
		return nil, err
	}
	if cfg.Region == "" {
		err := fmt.Errorf("no region for bucket %q", o.Bucket)
		return nil, backup.WithHint(err, "set the region, AWS_REGION, or an endpoint")
	}
	b.ssec, err = o.customerKey(endpoint)
	return b, err
}

// customerKey returns nil if there is none.
func (o *Options) customerKey(endpoint string) (*customerKey, error) {
	if o.SSECKeyFile == "" {
		return nil, nil
	}
	if strings.HasPrefix(endpoint, "http://") {
		return nil, fmt.Errorf("a customer key would travel unprotected to %s: want https", endpoint)
	}
	return readCustomerKey(o.SSECKeyFile)
}

func (o *Options) config(ctx context.Context) (aws.Config, error) {
	opts := []func(*config.LoadOptions) error{config.WithAppID("backupd")}
	if o.Region != "" {
		opts = append(opts, config.WithRegion(o.Region))
	}
	if o.CredentialsFile == "" {
		if o.Profile != "" {
			opts = append(opts, config.WithSharedConfigProfile(o.Profile))
		}
		return load(ctx, opts)
	}
	file := &fileCredentials{path: o.CredentialsFile, profile: o.Profile}
	// A mistake in the file should be known now and not in the night.
	if _, err := file.Retrieve(ctx); err != nil {
		return aws.Config{}, err
	}
	return load(ctx, append(opts, config.WithCredentialsProvider(aws.NewCredentialsCache(file))))
}

func load(ctx context.Context, opts []func(*config.LoadOptions) error) (aws.Config, error) {
	cfg, err := config.LoadDefaultConfig(ctx, opts...)
	if err != nil {
		return cfg, fmt.Errorf("load AWS configuration: %w", err)
	}
	return cfg, nil
}

func checkEndpoint(endpoint string) error {
	if endpoint == "" {
		return nil
	}
	if secret.InAddress(endpoint) {
		return errors.New("the endpoint must not hold credentials") // nor does the error
	}
	u, err := url.Parse(endpoint)
	if err != nil {
		return fmt.Errorf("endpoint %q is not a URL", secret.Show(endpoint))
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("endpoint %q: want http://HOST or https://HOST", secret.Show(endpoint))
	}
	return nil
}

// transport is the SDK's own, with what it lacks: a deadline for progress.
func transport(base aws.HTTPClient, pool *x509.CertPool, progress time.Duration) aws.HTTPClient {
	// base carries the CA bundle of the environment, if there is one.
	client, ok := base.(*awshttp.BuildableClient)
	if !ok {
		client = awshttp.NewBuildableClient()
	}
	dialer := &net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}
	return client.WithTransportOptions(func(t *http.Transport) {
		t.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return &progressConn{Conn: conn, timeout: progress}, nil
		}
		if t.TLSClientConfig == nil {
			t.TLSClientConfig = &tls.Config{}
		}
		t.TLSClientConfig.MinVersion = tls.VersionTLS12
		if pool != nil {
			t.TLSClientConfig.RootCAs = pool
		}
		// One request per connection at a time: over HTTP/2 a stalled upload
		// would hide behind the progress of the others.
		t.ForceAttemptHTTP2 = false
		t.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
		t.DisableCompression = true // stored bytes are wanted, as they are
		t.MaxIdleConnsPerHost = 32
	}).Freeze()
}

// customerKey is a key of SSE-C as the headers want it. Every request that
// touches an object's bytes or size must bring it.
type customerKey struct{ algorithm, key, md5 *string }

func (k *customerKey) headers() (algorithm, key, md5 *string) {
	if k == nil {
		return nil, nil, nil
	}
	return k.algorithm, k.key, k.md5
}

func readCustomerKey(file string) (*customerKey, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read customer key: %w", err)
	}
	if len(raw) != 32 {
		decoded, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(raw)))
		if err != nil || len(decoded) != 32 {
			return nil, fmt.Errorf("read customer key %s: want 32 bytes, raw or in base64", file)
		}
		raw = decoded
	}
	sum := md5.Sum(raw) // see above
	return &customerKey{
		algorithm: aws.String("AES256"),
		key:       aws.String(base64.StdEncoding.EncodeToString(raw)),
		md5:       aws.String(base64.StdEncoding.EncodeToString(sum[:])),
	}, nil
}
