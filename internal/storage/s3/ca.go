package s3

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// caClient sends requests over connections that trust the CAs in a file. It
// reads the file before each request, and makes new connections when it has
// changed. While the file is broken, perhaps because it is being written, the
// previous CAs stay trusted.
type caClient struct {
	file string
	make func(*x509.CertPool) aws.HTTPClient
	log  *slog.Logger

	mu     sync.Mutex
	raw    []byte         // of the file that client was made with; guarded by mu
	client aws.HTTPClient // guarded by mu
	warned string         // the last warning, until the file is good again; guarded by mu
}

// newHTTPClient returns a client made by make: always the same if there is no
// file.
func newHTTPClient(file string, log *slog.Logger, make func(*x509.CertPool) aws.HTTPClient) (aws.HTTPClient, error) {
	if file == "" {
		return make(nil), nil
	}
	c := &caClient{file: file, make: make, log: log}
	return c, c.refresh()
}

// Do implements [aws.HTTPClient].
func (c *caClient) Do(req *http.Request) (*http.Response, error) {
	return c.current().Do(req)
}

func (c *caClient) current() aws.HTTPClient {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.refresh()
	if err == nil {
		c.warned = ""
	} else if text := err.Error(); text != c.warned {
		c.log.Warn("the CA file cannot be read again: its previous CAs stay trusted", "err", err)
		c.warned = text
	}
	return c.client
}

// refresh needs mu, unless c is still unknown to others.
func (c *caClient) refresh() error {
	raw, err := os.ReadFile(c.file)
	if err != nil {
		return fmt.Errorf("read CA file: %w", err)
	}
	if c.client != nil && bytes.Equal(raw, c.raw) {
		return nil
	}
	pool, err := certPool(raw)
	if err != nil {
		return fmt.Errorf("read CA file %s: %w", c.file, err)
	}
	// Requests of the old client finish on their connections; its transport closes
	// idle ones.
	c.raw, c.client = raw, c.make(pool)
	return nil
}

func certPool(raw []byte) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(raw) {
		return nil, errors.New("no certificate in it")
	}
	for block, rest := pem.Decode(raw); ; block, rest = pem.Decode(rest) {
		if block == nil && bytes.Contains(rest, []byte("-----BEGIN")) {
			return nil, errors.New("its last certificate is cut off")
		}
		if block == nil {
			return pool, nil
		}
	}
}
