package cluster_test

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

func TestTLS(t *testing.T) {
	real := testserver.StartCluster(t, testserver.Options{TLS: true})
	good := cluster.Config{
		Endpoints: real.Endpoints(), CAFile: real.CAFile, CertFile: real.CertFile, KeyFile: real.KeyFile,
	}

	t.Run("OK", func(t *testing.T) {
		c := testserver.Connect(t, good)
		s := survey(t, c)
		readAll(t, c, s.Candidates[0].Endpoint)
	})
	t.Run("WithoutScheme", func(t *testing.T) {
		conf := good
		conf.Endpoints = []string{real.Members[0].Endpoint}
		survey(t, testserver.Connect(t, conf))
	})
	t.Run("SkipVerify", func(t *testing.T) {
		conf := good
		conf.CAFile, conf.InsecureSkipVerify = "", true
		survey(t, testserver.Connect(t, conf))
	})
	for name, c := range map[string]struct {
		change func(*cluster.Config)
		want   string
	}{
		"WrongCA":      {func(c *cluster.Config) { c.CAFile = testserver.NewAuthority(t).File }, "unknown authority"},
		"NoCA":         {func(c *cluster.Config) { c.CAFile = "" }, "unknown authority"},
		"NoClientCert": {func(c *cluster.Config) { c.CertFile, c.KeyFile = "", "" }, "refuses this client"},
		"PlainHTTP": {func(c *cluster.Config) {
			c.Endpoints = []string{"http://" + real.Members[0].Endpoint}
		}, "speaks TLS"},
	} {
		t.Run(name, func(t *testing.T) {
			conf := good
			c.change(&conf)
			var none *cluster.NoMemberError
			_, err := testserver.Connect(t, conf).Survey(t.Context())
			if !errors.As(err, &none) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want a NoMemberError with %q", err, c.want)
			}
		})
	}
}

func TestAuth(t *testing.T) {
	real := testserver.StartCluster(t, testserver.Options{Args: []string{"--bcrypt-cost=4"}})
	filled := testserver.Fill(t, real.Client(t), testserver.FillOptions{Keys: 10})
	real.AddUser(t, "reader", "secret", "all-keys")
	real.EnableAuth(t, "secret")
	url := real.Members[0].ClientURL
	as := func(t *testing.T, user, password string) *cluster.Cluster {
		return testserver.Connect(t, cluster.Config{Endpoints: []string{url}, Username: user, Password: password})
	}
	refused := func(t *testing.T, what string, err error, want string) {
		t.Helper()
		var hint *backup.HintError
		if !errors.Is(err, cluster.ErrPermission) || !strings.Contains(err.Error(), want) || !errors.As(err, &hint) {
			t.Errorf("%s: got %v, want a hint and ErrPermission with %q", what, err, want)
		} else if strings.Contains(hint.Configured(), "--") {
			t.Errorf("%s: the hint for a configuration names a flag: %s", what, hint.Configured())
		}
	}

	t.Run("NoUser", func(t *testing.T) {
		_, err := as(t, "", "").Survey(t.Context())
		refused(t, "survey", err, "no user was given")
	})
	t.Run("WrongPassword", func(t *testing.T) {
		_, err := as(t, "root", "wrong").Survey(t.Context())
		refused(t, "survey", err, "wrong user name or password")
	})
	t.Run("NotRoot", func(t *testing.T) {
		c := as(t, "reader", "secret")
		survey(t, c)
		_, err := c.Stream(t.Context(), url)
		refused(t, "stream", err, "role root")
		_, err = c.HashKV(t.Context(), cluster.Candidate{Endpoint: url}, backup.Revision(filled.Revision))
		refused(t, "HashKV", err, "role root")
	})
	t.Run("Root", func(t *testing.T) {
		c := as(t, "root", "secret")
		survey(t, c)
		readAll(t, c, url)
		if _, err := c.HashKV(t.Context(), memberAt(t, c, url), backup.Revision(filled.Revision)); err != nil {
			t.Error(err)
		}
	})
	// A member that restarts has forgotten all tokens, as if each had expired.
	t.Run("TokenLost", func(t *testing.T) {
		member := memberAt(t, as(t, "root", "secret"), url)
		for name, use := range map[string]func(*cluster.Cluster) error{
			"Stream": func(c *cluster.Cluster) error {
				s, err := c.Stream(t.Context(), url)
				if err != nil {
					return err
				}
				defer s.Close()
				_, err = io.Copy(io.Discard, s)
				return err
			},
			"HashKV": func(c *cluster.Cluster) error {
				_, err := c.HashKV(t.Context(), member, backup.Revision(filled.Revision))
				return err
			},
		} {
			c := as(t, "root", "secret")
			survey(t, c)
			real.Members[0].Kill()
			real.Members[0].Restart(t)
			real.WaitReady(t)
			testserver.Eventually(t, name+" after a restart", func() bool {
				err := use(c)
				if err != nil && !strings.Contains(err.Error(), "unreachable") { // the connection takes a moment
					t.Fatalf("%s: %v", name, err)
				}
				return err == nil
			})
		}
	})
}
