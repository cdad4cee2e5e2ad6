package kubeapi

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"syscall"
)

// failed says why there is no answer. What the other side sent, a port of this host or the time of
// now is not in it: it stands in a manifest, and is compared with the reason of the next slot.
func (c *Client) failed(err error) error {
	var (
		unknown x509.UnknownAuthorityError
		name    x509.HostnameError
		invalid x509.CertificateInvalidError
		remote  *net.OpError
		record  tls.RecordHeaderError
		lookup  *net.DNSError
		number  syscall.Errno
		slow    net.Error
	)
	const untrusted = "%s: certificate not trusted: %s"
	switch {
	case errors.Is(err, context.Canceled):
		return errors.New("it was interrupted before it was read")
	case errors.As(err, &unknown):
		return fmt.Errorf(untrusted, c.address(), "no authority in "+c.trust+" has issued it")
	case errors.As(err, &name):
		return fmt.Errorf(untrusted, c.address(), "it is not for the name "+c.serverName())
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Errorf(untrusted, c.address(), "it has expired, or is not valid yet by the clock of this host")
	case errors.As(err, new(*tls.CertificateVerificationError)):
		return fmt.Errorf(untrusted, c.address(), "it is not one of a server, or is broken")
	case errors.As(err, &remote) && remote.Op == "remote error": // an alert of TLS, of which there are few
		return fmt.Errorf("%s refuses the connection (%w): it may not trust the certificate in %s", c.address(), remote.Err,
			c.who)
	case errors.As(err, &record):
		return fmt.Errorf("unreachable: %s does not speak TLS", c.address())
	case errors.As(err, &slow) && slow.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("unreachable: %s gave no answer in time", c.address())
	case errors.As(err, &lookup) && lookup.IsNotFound:
		return fmt.Errorf("unreachable: %s: there is no host of this name", c.address())
	case errors.As(err, &lookup):
		return fmt.Errorf("unreachable: %s: its name cannot be looked up", c.address())
	case errors.As(err, &number):
		return fmt.Errorf("unreachable: %s: %w", c.address(), number)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("unreachable: %s ended the connection before its answer did", c.address())
	}
	return fmt.Errorf("unreachable: %s does not answer as one does", c.address())
}

func (c *Client) serverName() string {
	if c.tls.ServerName != "" {
		return c.tls.ServerName
	}
	return c.server.Hostname()
}

// user finds who was refused in what an API server says of it. The rest may be of anybody.
var user = regexp.MustCompile(`User "([A-Za-z0-9:@._/-]{1,253})" cannot get resource`)

// refused says what an answer means that is no Secret.
func (c *Client) refused(code int, body []byte, namespace, name string) error {
	var status struct {
		Kind, Message, Reason string
		Details               struct{ Kind, Name string }
	}
	if err := json.Unmarshal(body, &status); err != nil {
		status.Kind = "" // it is no Status
	}
	of := status.Kind == "Status"
	switch {
	case code == http.StatusUnauthorized:
		return fmt.Errorf("unauthorized: %s does not accept what %s holds, which may have expired", c.address(), c.who)
	case code == http.StatusForbidden:
		who := "the user of " + c.who
		if found := user.FindStringSubmatch(status.Message); of && found != nil {
			who = found[1]
		}
		return fmt.Errorf("forbidden: %s may not get it: its Role in the namespace %s needs the verb get on secrets, "+
			"with %s among resourceNames", who, namespace, name)
	case code == http.StatusNotFound && of && status.Reason == "NotFound" && status.Details.Name == name:
		return fmt.Errorf("not found: %s has no such Secret", c.address())
	case code == http.StatusNotFound:
		return fmt.Errorf("%s does not answer as one does (404): check the path of its address", c.address())
	case code >= 300 && code < 400:
		return fmt.Errorf("%s sends us elsewhere (%d), where the token would go, too: it is not followed", c.address(), code)
	case code == http.StatusTooManyRequests || code >= 500:
		return fmt.Errorf("unreachable: %s answers %d %s", c.address(), code, http.StatusText(code))
	}
	return fmt.Errorf("%s does not answer as one does (%d)", c.address(), code)
}
