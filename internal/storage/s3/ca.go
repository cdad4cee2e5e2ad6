package s3

import (
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/etcd-backupd/backupd/internal/certs"
)

// caClient sends requests over connections that trust the CAs in a file. When
// the file has changed it uses new connections. Those of the old client go on
// to their ends; its transport closes idle ones.
type caClient struct {
	*certs.Reloaded[aws.HTTPClient]
}

// newHTTPClient returns a client made by make: always the same if there is no
// file.
func newHTTPClient(file string, log *slog.Logger, make func(*x509.CertPool) aws.HTTPClient) (aws.HTTPClient, error) {
	if file == "" {
		return make(nil), nil
	}
	client, err := certs.Load(log, func(contents [][]byte) (aws.HTTPClient, error) {
		pool, err := certs.ParsePool(contents[0])
		if err != nil {
			return nil, err
		}
		return make(pool), nil
	}, file)
	if err != nil {
		return nil, fmt.Errorf("read CA file: %w", err)
	}
	return caClient{client}, nil
}

// Do implements [aws.HTTPClient].
func (c caClient) Do(req *http.Request) (*http.Response, error) { return c.Get().Do(req) }
