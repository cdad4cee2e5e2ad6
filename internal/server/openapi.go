package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/jsonschema-go/jsonschema"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/server/callers"
)

// describe returns the OpenAPI document.
func describe(s *Server, _ *http.Request) (any, error) { return json.RawMessage(s.document), nil }

type object = map[string]any

// named are the types that have a schema of their own in the document, by its name.
var named = map[string]reflect.Type{
	"Cluster": reflect.TypeFor[Cluster](), "ClusterList": reflect.TypeFor[ClusterList](),
	"Snapshot": reflect.TypeFor[backup.Row](), "SnapshotList": reflect.TypeFor[SnapshotList](),
	"SnapshotDetail": reflect.TypeFor[SnapshotDetail](),
	"Job":            reflect.TypeFor[Job](), "JobList": reflect.TypeFor[JobList](),
	"PruneDecision": reflect.TypeFor[backup.PruneRow](), "PrunePlan": reflect.TypeFor[PrunePlan](),
	"VerificationRequest": reflect.TypeFor[VerificationRequest](), "PinRequest": reflect.TypeFor[PinRequest](),
	"Problem": reflect.TypeFor[Problem](),
}

// newDocument describes the routes of a table as OpenAPI 3.1.
func newDocument(table []route, version string) ([]byte, error) {
	if version == "" {
		version = "unknown"
	}
	requests := map[reflect.Type]bool{}
	for _, t := range table {
		requests[t.endpoint.request] = true
	}
	schemas := object{}
	for name, t := range named {
		s, err := schemaOf(t)
		if err != nil {
			return nil, err
		}
		if !requests[t] {
			s.AdditionalProperties = nil // later versions may add fields to answers
		}
		schemas[name] = s
	}
	paths := map[string]object{}
	for _, t := range table {
		op, err := operation(t)
		if err != nil {
			return nil, err
		}
		if paths[t.path] == nil {
			paths[t.path] = object{}
		}
		paths[t.path][strings.ToLower(t.method)] = op
	}
	raw, err := json.Marshal(object{
		"openapi": "3.1.0",
		"info": object{
			"title": "backupd", "version": version,
			"description": "Backups of etcd clusters: their status, and how to start one. The API cannot restore or delete. " +
				"A daemon without configured credentials, which may listen on loopback only, asks for none.",
			"license": object{"name": "Apache-2.0", "identifier": "Apache-2.0"},
		},
		"servers": []object{{"url": "/"}},
		"paths":   paths,
		"components": object{
			"schemas": schemas,
			"securitySchemes": object{
				"bearer": object{"type": "http", "scheme": "bearer",
					"description": "A token of read-tokens-file or operate-tokens-file. Operate includes read."},
				"certificate": object{"type": "mutualTLS",
					"description": "A client certificate that client-ca-file has signed, with a name that callers lists."},
			},
		},
	})
	if err != nil {
		return nil, fmt.Errorf("encode OpenAPI document: %w", err)
	}
	return raw, nil
}

func operation(t route) (object, error) {
	op := object{"operationId": t.id, "summary": t.summary, "security": security(t.scope)}
	if params := parameters(t); len(params) > 0 {
		op["parameters"] = params
	}
	if t.endpoint.request != nil {
		s, err := reference(t.endpoint.request)
		if err != nil {
			return nil, err
		}
		// No body means an empty object, which is enough for some routes.
		op["requestBody"] = object{"required": t.endpoint.request.NumField() > 0,
			"content": object{mediaJSON: object{"schema": s}}}
	}
	success := object{"description": http.StatusText(t.endpoint.status)}
	switch {
	case t.endpoint.response != nil:
		s, err := reference(t.endpoint.response)
		if err != nil {
			return nil, err
		}
		success["content"] = object{t.endpoint.media: object{"schema": s}}
	case t.endpoint.media != "":
		success["content"] = object{t.endpoint.media: object{"schema": object{"type": "string"}}}
	}
	if t.endpoint.status == http.StatusAccepted {
		success["headers"] = object{"Location": object{"description": "path of the job",
			"schema": object{"type": "string"}}}
	}
	op["responses"] = object{
		strconv.Itoa(t.endpoint.status): success,
		"default":                       problemAnswer("Any other problem"),
	}
	for _, status := range t.endpoint.problems {
		op["responses"].(object)[strconv.Itoa(status)] = problemAnswer(http.StatusText(status))
	}
	return op, nil
}

func problemAnswer(description string) object {
	return object{"description": description, "content": object{ProblemType: object{"schema": refTo("Problem")}}}
}

func security(need callers.Scope) []object {
	if need == callers.None {
		return []object{}
	}
	return []object{{"bearer": []string{need.String()}}, {"certificate": []string{need.String()}}}
}

func parameters(t route) []object {
	var out []object
	for _, segment := range strings.Split(t.path, "/") {
		if name := strings.Trim(segment, "{}"); name != segment {
			out = append(out, object{"name": name, "in": "path", "required": true, "schema": object{"type": "string"}})
		}
	}
	for _, p := range t.query {
		out = append(out, object{"name": p.name, "in": "query", "description": p.description, "schema": p.schema})
	}
	return out
}

func refTo(name string) *jsonschema.Schema {
	return &jsonschema.Schema{Ref: "#/components/schemas/" + name}
}

// reference returns a type's schema, or a reference to it if it is named.
func reference(t reflect.Type) (*jsonschema.Schema, error) {
	for name, n := range named {
		if n == t {
			return refTo(name), nil
		}
	}
	return schemaOf(t)
}

// schemaOf returns the schema of a type. It refers to the named types in it.
func schemaOf(t reflect.Type) (*jsonschema.Schema, error) {
	known := map[reflect.Type]*jsonschema.Schema{
		reflect.TypeFor[time.Time](): {Type: "string", Format: "date-time"},
	}
	for name, n := range named {
		if n != t && !embeds(t, n) {
			known[n] = refTo(name)
		}
	}
	s, err := jsonschema.ForType(t, &jsonschema.ForOptions{TypeSchemas: known})
	if err != nil {
		return nil, fmt.Errorf("describe %s: %w", t, err)
	}
	// The server never sends null, neither for an empty list nor for an object that is absent.
	for _, p := range s.Properties {
		switch {
		case p.Items != nil:
			p.Types, p.Type = nil, "array"
		case slices.Equal(p.Types, []string{"null", "object"}):
			p.Types, p.Type = nil, "object"
		}
	}
	return s, nil
}

func embeds(t, other reflect.Type) bool {
	if t.Kind() != reflect.Struct {
		return false
	}
	f, ok := t.FieldByName(other.Name())
	return ok && f.Anonymous && f.Type == other
}
