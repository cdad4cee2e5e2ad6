package server_test

import (
	"crypto/tls"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/server"
	"github.com/etcd-backupd/backupd/internal/server/callers"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

func TestTokens(t *testing.T) {
	both := server.Options{ReadTokensFile: tokenFile(t, readToken, "", "read-token-of-tomorrow"),
		OperateTokensFile: tokenFile(t, operateToken)}
	readOnly := server.Options{ReadTokensFile: both.ReadTokensFile}
	for _, c := range []struct {
		name   string
		o      server.Options
		header string
		read   int
		write  int
	}{
		{"NoneConfigured", server.Options{}, "", 200, 202},
		{"NoneConfiguredOneSent", server.Options{}, "Bearer whatever-it-may-be", 200, 202},
		{"None", both, "", 401, 401},
		{"Read", both, "Bearer " + readToken, 200, 403},
		{"ReadOfTomorrow", both, "Bearer read-token-of-tomorrow", 200, 403},
		{"Operate", both, "Bearer " + operateToken, 200, 202},
		{"SchemeInCapitals", both, "BEARER " + operateToken, 200, 202},
		{"Wrong", both, "Bearer " + readToken + "x", 401, 401},
		{"Empty", both, "Bearer ", 401, 401},
		{"Basic", both, "Basic " + readToken, 401, 401},
		{"OnlyReadersRead", readOnly, "Bearer " + readToken, 200, 403},
		{"OnlyReadersOperate", readOnly, "Bearer " + operateToken, 401, 401},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := start(t, c.o)
			var headers []string
			if c.header != "" {
				headers = append(headers, "Authorization: "+c.header)
			}
			for _, path := range []string{"/metrics", api + "/clusters", api + "/openapi.json"} {
				if resp, body := r.do(t, "GET", path, "", headers...); resp.StatusCode != c.read {
					t.Errorf("GET %s: %s, want %d: %s", path, resp.Status, c.read, body)
				}
			}
			resp, body := r.do(t, "POST", prod+"/backups", "", headers...)
			if resp.StatusCode != c.write {
				t.Errorf("POST: %s, want %d: %s", resp.Status, c.write, body)
			}
			challenge := resp.Header.Get("WWW-Authenticate")
			if want := map[int]string{202: "", 401: `Bearer realm="backupd"`,
				403: `error="insufficient_scope", scope="operate"`}[c.write]; !strings.Contains(challenge, want) ||
				(want == "") != (challenge == "") {
				t.Errorf("WWW-Authenticate: %s, want %s", challenge, want)
			}
		})
	}
}

func TestTokens_SameInBothFiles(t *testing.T) {
	file := tokenFile(t, readToken)
	r := start(t, server.Options{ReadTokensFile: file, OperateTokensFile: file})
	for range 20 { // the files are looked at in any order
		resp, _ := r.do(t, "PUT", prod+"/snapshots/"+snapshotID+"/pin", `{"reason":"x"}`,
			"Authorization: Bearer "+readToken)
		if resp.StatusCode != http.StatusNoContent {
			t.Fatal(resp.Status)
		}
	}
}

func TestTokens_Rotation(t *testing.T) {
	file := tokenFile(t, readToken)
	r := start(t, server.Options{ReadTokensFile: file})
	const next = "the-token-after-it-01"
	works := func(token string) bool {
		resp, _ := r.do(t, "GET", api+"/jobs", "", "Authorization: Bearer "+token)
		return resp.StatusCode == http.StatusOK
	}
	for i, step := range []struct {
		lines     string
		old, next bool
	}{
		{readToken, true, false},
		{readToken + "\n" + next, true, true},
		{next, false, true},
		{"short", false, true}, // bad: what was said before still holds
		{readToken, true, false},
	} {
		write(t, file, step.lines)
		if old, new := works(readToken), works(next); old != step.old || new != step.next {
			t.Errorf("step %d: the old token works: %v, want %v; the next: %v, want %v", i, old, step.old, new, step.next)
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if !works(readToken) {
		t.Error("a token stopped to work when its file was gone for a moment")
	}
	if n := strings.Count(r.log.String(), "changed files are bad"); n != 2 {
		t.Errorf("%d lines about a bad file, want one each for two", n)
	}
}

// The log reports a wrong token, but shows no token.
func TestNoSecretsInLogs(t *testing.T) {
	file := tokenFile(t, operateToken)
	r := start(t, server.Options{OperateTokensFile: file})
	r.do(t, "GET", api+"/jobs", "", "Authorization: Bearer "+operateToken)
	r.do(t, "GET", api+"/jobs", "", "Authorization: Bearer wrong-token-0123456789")
	r.do(t, "GET", api+"/jobs?token="+operateToken, "", "Cookie: x=secret-of-a-cookie")
	write(t, file, "sesame")
	r.do(t, "GET", api+"/jobs", "", "Authorization: Bearer "+operateToken)
	log := r.log.String()
	for _, secret := range []string{operateToken, "wrong-token", "sesame", "secret-of-a-cookie"} {
		if strings.Contains(log, secret) {
			t.Errorf("%q is in the log:\n%s", secret, log)
		}
	}
	for _, want := range []string{"wrong bearer token",
		"level=DEBUG msg=request method=GET path=/api/v1/jobs status=200"} {
		if !strings.Contains(log, want) {
			t.Errorf("%q is not in the log:\n%s", want, log)
		}
	}
}

func TestClientCertificates(t *testing.T) {
	ours, others := testserver.NewAuthority(t), testserver.NewAuthority(t)
	o := server.Options{ClientCAFile: ours.File, ReadTokensFile: tokenFile(t, readToken),
		Callers: []callers.Caller{{Certificate: "operator", Operate: true}, {Certificate: "colleague", Operate: true},
			{Certificate: "reader"}, {Certificate: "team", Clusters: []string{"other"}}}}
	o.CertFile, o.KeyFile = ours.Issue(t, "server")
	r := start(t, o)
	transport := r.client.Transport.(*http.Transport)
	with := func(certs ...tls.Certificate) {
		transport.CloseIdleConnections()
		transport.TLSClientConfig = &tls.Config{RootCAs: ours.Pool()}
		if len(certs) > 0 { // it is sent although the server names another authority
			transport.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				return &certs[0], nil
			}
		}
	}
	refused := func(who string) {
		t.Helper()
		resp, err := r.client.Get(r.url + api + "/jobs")
		if err == nil {
			resp.Body.Close()
			t.Errorf("%s got %s, want no connection", who, resp.Status)
		}
	}
	with()
	if resp, _ := r.do(t, "GET", "/healthz", ""); resp.StatusCode != http.StatusOK {
		t.Errorf("a probe without certificate: %s", resp.Status)
	}
	if p := r.problem(t, http.StatusUnauthorized, "GET", api+"/jobs", ""); !strings.Contains(p.Detail,
		"client certificate") {
		t.Errorf("detail %q", p.Detail)
	}
	if resp, _ := r.do(t, "GET", api+"/jobs", "", "Authorization: Bearer "+readToken); resp.StatusCode != http.StatusOK {
		t.Errorf("a token instead: %s", resp.Status)
	}
	pair := loadPair(t, ours, "operator")
	with(pair)
	if resp, _ := r.do(t, "POST", prod+"/backups", ""); resp.StatusCode != http.StatusAccepted {
		t.Errorf("with a certificate: %s", resp.Status)
	}
	with(loadPair(t, ours, "reader"))
	if resp, _ := r.do(t, "GET", api+"/jobs", ""); resp.StatusCode != http.StatusOK {
		t.Errorf("a reader: %s", resp.Status)
	}
	if p := r.problem(t, http.StatusForbidden, "POST", prod+"/backups", ""); !strings.Contains(p.Detail, "operate") {
		t.Errorf("a reader operates: %+v", p)
	}
	with(loadPair(t, ours, "clerk")) // of the right authority, and named nowhere
	if p := r.problem(t, http.StatusForbidden, "GET", api+"/jobs", ""); !strings.Contains(p.Detail, "clerk") {
		t.Errorf("a certificate without rights: %+v", p)
	}
	if resp, _ := r.do(t, "GET", api+"/jobs", "", "Authorization: Bearer "+readToken); resp.StatusCode != http.StatusOK {
		t.Errorf("with a token besides: %s", resp.Status)
	}
	with(loadPair(t, others, "stranger"))
	refused("a certificate of another authority")
	// The authority is changed.
	write(t, ours.File, readFile(t, others.File))
	with(pair)
	refused("a certificate of the former authority")
	with(loadPair(t, others, "colleague"))
	if resp, _ := r.do(t, "POST", prod+"/verifications",
		`{"snapshot":"latest"}`); resp.StatusCode != http.StatusAccepted {
		t.Errorf("with a certificate of the new authority: %s", resp.Status)
	}
}

func loadPair(t *testing.T, a *testserver.Authority, name string) tls.Certificate {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(a.Issue(t, name))
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	raw, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestServerCertificateIsReadAgain(t *testing.T) {
	first, second := testserver.NewAuthority(t), testserver.NewAuthority(t)
	o := server.Options{ReadTokensFile: tokenFile(t, readToken)}
	o.CertFile, o.KeyFile = first.Issue(t, "server")
	r := start(t, o)
	transport := r.client.Transport.(*http.Transport)
	reach := func(a *testserver.Authority) error {
		transport.CloseIdleConnections()
		transport.TLSClientConfig = &tls.Config{RootCAs: a.Pool()}
		resp, err := r.client.Get(r.url + "/healthz")
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	if err := reach(first); err != nil {
		t.Fatal(err)
	}
	// A session that could be resumed would go on with what was read before.
	transport.CloseIdleConnections()
	transport.TLSClientConfig = &tls.Config{RootCAs: first.Pool(), ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	for range 3 {
		resp, _ := r.do(t, "GET", "/healthz", "")
		if resp.TLS.DidResume {
			t.Error("a TLS session was resumed")
		}
		transport.CloseIdleConnections()
	}
	cert, key := second.Issue(t, "server")
	write(t, o.CertFile, readFile(t, cert))
	if err := reach(first); err != nil {
		t.Errorf("between the two files of a rotation: %v", err)
	}
	write(t, o.KeyFile, readFile(t, key))
	if err := reach(second); err != nil {
		t.Errorf("with the new certificate: %v", err)
	}
	if err := reach(first); err == nil {
		t.Error("the old certificate is still served")
	}
}

func TestNew_Errors(t *testing.T) {
	ca := testserver.NewAuthority(t)
	cert, key := ca.Issue(t, "server")
	empty := tokenFile(t, "")
	taken := start(t, server.Options{}).Addr().String()
	for _, c := range []struct {
		name string
		o    server.Options
		want string
	}{
		{"NoPort", server.Options{Listen: "127.0.0.1"}, "missing port"},
		{"Taken", server.Options{Listen: taken}, "address already in use"},
		{"CertWithoutKey", server.Options{CertFile: cert}, "belong together"},
		{"AuthorityAlone", server.Options{ClientCAFile: ca.File}, "client-ca-file needs both"},
		{"NoSuchCert", server.Options{CertFile: "none.pem", KeyFile: key}, "read server certificate: open none.pem"},
		{"KeyOfAnother", server.Options{CertFile: ca.File, KeyFile: key}, "private key does not match"},
		{"AuthorityOfNobody", server.Options{CertFile: cert, KeyFile: key, ClientCAFile: ca.File}, "name those who may call"},
		{"NobodysCertificate", server.Options{Callers: []callers.Caller{{Certificate: "x"}}}, "needs client-ca-file"},
		{"UnknownCaller", server.Options{Callers: []callers.Caller{{}}}, "by a certificate or by a file of tokens"},
		{"TokensOfACaller", server.Options{Callers: []callers.Caller{{TokensFile: empty}}}, "holds no token"},
		{"AuthorityWithoutCertificate", server.Options{CertFile: cert, KeyFile: key, ClientCAFile: empty},
			"holds no certificate"},
		{"NoSuchTokens", server.Options{ReadTokensFile: "none"}, "read read tokens: open none"},
		{"NoToken", server.Options{ReadTokensFile: empty}, "holds no token"},
		{"ShortToken", server.Options{OperateTokensFile: tokenFile(t, "", "sesame")}, "line 2: a token of 6 characters"},
		{"TokenWithSpace", server.Options{OperateTokensFile: tokenFile(t, "two words and more")},
			"line 1: a token is made of"},
		{"ThreeTokens", server.Options{OperateTokensFile: tokenFile(t, readToken, operateToken, "third-token-0123456789")},
			"at most two"},
		{"HostWithPort", server.Options{AllowedHosts: []string{"backup.example:9387"}}, `allowed host "backup.example:9387"`},
		{"HostWithScheme", server.Options{AllowedHosts: []string{"https://backup.example"}}, "without scheme"},
		{"EmptyHost", server.Options{AllowedHosts: []string{""}}, "allowed host"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.o.Listen == "" {
				c.o.Listen = "127.0.0.1:0"
			}
			c.o.Backend, c.o.Metrics = newBackend(), metrics()
			s, err := server.New(c.o)
			if err == nil {
				_ = s.Close()
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "sesame") {
				t.Errorf("error %q, want %q in it and no token", err, c.want)
			}
		})
	}
}
