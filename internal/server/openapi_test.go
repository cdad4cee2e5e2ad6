package server_test

import (
	"bufio"
	"cmp"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/jsonschema-go/jsonschema"

	"github.com/etcd-backupd/backupd/internal/server"
)

// document is the served OpenAPI document, as somebody else's program reads it.
type document struct {
	OpenAPI    string
	Info       struct{ Title, Version string }
	Paths      map[string]map[string]operation
	Components struct {
		Schemas map[string]json.RawMessage
	}
}

type operation struct {
	OperationID string
	Summary     string
	Security    []map[string][]string
	Parameters  []struct {
		Name, In string
		Required bool
	}
	RequestBody *struct {
		Required bool
		Content  map[string]struct{ Schema json.RawMessage }
	}
	Responses map[string]struct {
		Description string
		Content     map[string]struct{ Schema json.RawMessage }
	}

	method, path, id string
}

func readDocument(t testing.TB, r *running) *document {
	t.Helper()
	resp, raw := r.do(t, "GET", api+"/openapi.json", "", "Authorization: Bearer "+operateToken)
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", resp.Status, raw)
	}
	var d document
	if err := json.Unmarshal([]byte(raw), &d); err != nil {
		t.Fatal(err)
	}
	return &d
}

func (d *document) operations() []operation {
	var out []operation
	for path, methods := range d.Paths {
		for method, op := range methods {
			op.method, op.path, op.id = strings.ToUpper(method), path, op.OperationID
			out = append(out, op)
		}
	}
	// Reads first: they are not to see what the others do.
	slices.SortFunc(out, func(a, b operation) int {
		return cmp.Or(strings.Compare(a.method, b.method), strings.Compare(a.path, b.path))
	})
	return out
}

// example is the operation's path with parameters that exist.
func (op operation) example() string {
	id := snapshotID
	if strings.Contains(op.path, "/jobs/") {
		id = "job1"
	}
	return strings.NewReplacer("{repository}", "main", "{cluster}", "prod", "{id}", id).Replace(op.path)
}

// schema resolves a schema of the document, closed: fields that it does not
// know are errors.
func (d *document) schema(t testing.TB, raw json.RawMessage) *jsonschema.Resolved {
	t.Helper()
	local := func(raw []byte) *jsonschema.Schema {
		var s jsonschema.Schema
		if err := json.Unmarshal([]byte(strings.ReplaceAll(string(raw), "#/components/schemas/", "#/$defs/")),
			&s); err != nil {
			t.Fatal(err)
		}
		return &s
	}
	s := local(raw)
	s.Defs = map[string]*jsonschema.Schema{}
	for name, raw := range d.Components.Schemas {
		def := local(raw)
		def.AdditionalProperties = &jsonschema.Schema{Not: &jsonschema.Schema{}}
		s.Defs[name] = def
	}
	resolved, err := s.Resolve(nil)
	if err != nil {
		t.Fatal(err)
	}
	return resolved
}

func (d *document) validate(t testing.TB, schema json.RawMessage, body string) {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	if err := d.schema(t, schema).Validate(v); err != nil {
		t.Errorf("the answer does not fit its schema: %v\n%s", err, body)
	}
}

// Each operation of the document is tried: what it answers fits what the
// document says, and so does what it refuses.
func TestDocumentIsTrue(t *testing.T) {
	b := newBackend()
	r := start(t, server.Options{Backend: b, ReadTokensFile: tokenFile(t, readToken),
		OperateTokensFile: tokenFile(t, operateToken)})
	d := readDocument(t, r)
	if d.OpenAPI != "3.1.0" || d.Info.Version != "v1.2.3" {
		t.Errorf("document %q of %+v", d.OpenAPI, d.Info)
	}
	for name, schema := range d.Components.Schemas {
		if strings.Contains(string(schema), `"null"`) {
			t.Errorf("%s may hold null, which the server never sends", name)
		}
	}
	bodies := map[string]string{"startVerification": `{"snapshot":"latest"}`, "pinSnapshot": `{"reason":"audit"}`}
	seen := map[string]bool{}
	for _, op := range d.operations() {
		t.Run(op.method+" "+op.path, func(t *testing.T) {
			if op.Summary == "" || op.id == "" || seen[op.id] {
				t.Errorf("summary %q, id %q", op.Summary, op.id)
			}
			seen[op.id] = true
			checkPathParameters(t, op)
			if op.RequestBody != nil {
				d.validate(t, op.RequestBody.Content["application/json"].Schema, cmp.Or(bodies[op.id], "{}"))
				if op.RequestBody.Required != (bodies[op.id] != "") {
					t.Errorf("body required: %v", op.RequestBody.Required)
				}
			}
			checkSecurity(t, r, d, op, bodies[op.id])
			body, kind, status := try(t, r, op, bodies[op.id])
			said, ok := op.Responses[status]
			if !ok || said.Description == "" {
				t.Fatalf("it answers %s, which the document does not say: %s", status, body)
			}
			if len(said.Content) == 0 && body == "" {
				return
			}
			content, ok := said.Content[kind]
			if !ok {
				t.Fatalf("it answers %s, which the document does not say", kind)
			}
			if kind == "application/json" {
				d.validate(t, content.Schema, body)
			}
			if kind == "text/event-stream" {
				d.validate(t, d.Components.Schemas["Job"], strings.TrimPrefix(body, "data: "))
			}
		})
	}
}

// try does the operation and returns the body, its type and the status. Of a
// stream the body is the first event.
func try(t *testing.T, r *running, op operation, body string) (answer, kind, status string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), op.method, r.url+op.example(), strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+operateToken)
	req.Header.Set("Content-Type", "application/json")
	resp, err := r.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	kind, _, _ = strings.Cut(resp.Header.Get("Content-Type"), ";")
	if kind == "text/event-stream" {
		in := bufio.NewReader(resp.Body)
		if first, err := in.ReadString('\n'); err != nil || first != "event: job\n" {
			t.Fatalf("first line %q, %v", first, err)
		}
		answer, err = in.ReadString('\n')
	} else {
		var raw []byte
		raw, err = io.ReadAll(resp.Body)
		answer = string(raw)
	}
	if err != nil {
		t.Fatal(err)
	}
	return answer, kind, resp.Status[:3]
}

func checkPathParameters(t *testing.T, op operation) {
	t.Helper()
	var got, want []string
	for _, p := range op.Parameters {
		if p.In == "path" && p.Required {
			got = append(got, "{"+p.Name+"}")
		}
	}
	for _, segment := range strings.Split(op.path, "/") {
		if strings.HasPrefix(segment, "{") {
			want = append(want, segment)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("path parameters %q, want %q", got, want)
	}
}

// checkSecurity tries the operation with nothing and with a read token, and
// compares with the scope that the document demands.
func checkSecurity(t *testing.T, r *running, d *document, op operation, body string) {
	t.Helper()
	problem := d.Components.Schemas["Problem"]
	if len(op.Security) == 0 {
		if op.path != "/healthz" && op.path != "/readyz" {
			t.Errorf("anyone may do it")
		}
		return
	}
	need := op.Security[0]["bearer"]
	resp, raw := r.do(t, op.method, op.example(), body)
	if resp.StatusCode != http.StatusUnauthorized || resp.Header.Get("WWW-Authenticate") == "" {
		t.Errorf("without a token: %s", resp.Status)
	}
	d.validate(t, problem, raw)
	if want := map[bool][]string{true: {"read"}, false: {"operate"}}[op.method == "GET"]; !slices.Equal(need, want) {
		t.Errorf("the document demands %q, want %q", need, want)
	}
	if op.method == "GET" {
		return
	}
	if resp, _ := r.do(t, op.method, op.example(), body,
		"Authorization: Bearer "+readToken); resp.StatusCode != http.StatusForbidden {
		t.Errorf("with a read token: %s", resp.Status)
	}
}

// What the document does not list is not there: other methods of its paths, and
// the paths around them.
func TestDocumentIsComplete(t *testing.T) {
	r := start(t, server.Options{})
	d := readDocument(t, r)
	for path, ops := range d.Paths {
		example := operation{path: path}.example()
		for _, m := range methods {
			_, listed := ops[strings.ToLower(m)]
			if _, get := ops["get"]; listed || m == "HEAD" && get {
				continue
			}
			resp, _ := r.do(t, m, example, "")
			if resp.StatusCode != http.StatusMethodNotAllowed || strings.Contains(resp.Header.Get("Allow"), m) {
				t.Errorf("%s %s: %s, Allow: %s", m, example, resp.Status, resp.Header.Get("Allow"))
			}
		}
		for parent := example; parent != ""; parent = parent[:strings.LastIndex(parent, "/")] {
			if !slices.ContainsFunc(d.operations(), func(op operation) bool { return op.example() == parent }) {
				r.problem(t, http.StatusNotFound, "GET", parent, "")
			}
			r.problem(t, http.StatusNotFound, "GET", parent+"/", "")
			r.problem(t, http.StatusNotFound, "GET", parent+"/x/y", "")
		}
	}
}

func TestHead(t *testing.T) {
	r := start(t, server.Options{})
	for _, op := range readDocument(t, r).operations() {
		if op.method != "GET" {
			continue
		}
		resp, body := r.do(t, "HEAD", op.example(), "")
		if resp.StatusCode != http.StatusOK || body != "" {
			t.Errorf("HEAD %s: %s %q", op.example(), resp.Status, body)
		}
	}
}
