package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"path"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/etcd-backupd/backupd/internal/server/callers"
	"github.com/etcd-backupd/backupd/internal/server/crowd"
)

// route is an entry of the table from which the handlers and the OpenAPI document
// are made.
type route struct {
	method, path string
	scope        callers.Scope
	whole        bool   // it tells of all clusters
	id           string // operationId
	summary      string
	query        []parameter
	endpoint     endpoint
}

// endpoint serves a route, and names the Go types of its request and its answer.
type endpoint struct {
	status   int
	request  reflect.Type // of the JSON body; nil: none
	response reflect.Type // of the JSON answer; nil: the answer is no JSON
	media    string
	problems []int // statuses besides those of every route
	serve    func(s *Server, w http.ResponseWriter, r *http.Request, body []byte) error
}

const mediaJSON = "application/json"

// get answers with the value that f returns.
func get[T any](f func(s *Server, r *http.Request) (T, error), problems ...int) endpoint {
	return endpoint{status: http.StatusOK, response: reflect.TypeFor[T](), media: mediaJSON, problems: problems,
		serve: func(s *Server, w http.ResponseWriter, r *http.Request, _ []byte) error {
			v, err := f(s, r)
			if err != nil {
				return err
			}
			return writeJSON(w, http.StatusOK, v)
		}}
}

// start starts a job and answers with it.
func start[B any](f func(s *Server, r *http.Request, body B) (Job, error), problems ...int) endpoint {
	return endpoint{status: http.StatusAccepted, request: reflect.TypeFor[B](), response: reflect.TypeFor[Job](),
		media: mediaJSON, problems: problems,
		serve: func(s *Server, w http.ResponseWriter, r *http.Request, raw []byte) error {
			var body B
			if err := decode(r, raw, &body); err != nil {
				return err
			}
			job, err := f(s, r, body)
			if err != nil {
				return err
			}
			w.Header().Set("Location", apiPrefix+"/jobs/"+url.PathEscape(job.ID))
			return writeJSON(w, http.StatusAccepted, job)
		}}
}

// put makes a change and answers without a body.
func put[B any](f func(s *Server, r *http.Request, body B) error, problems ...int) endpoint {
	return endpoint{status: http.StatusNoContent, request: reflect.TypeFor[B](), problems: problems,
		serve: func(s *Server, w http.ResponseWriter, r *http.Request, raw []byte) error {
			var body B
			if err := decode(r, raw, &body); err != nil {
				return err
			}
			if err := f(s, r, body); err != nil {
				return err
			}
			w.WriteHeader(http.StatusNoContent)
			return nil
		}}
}

func writeJSON(w http.ResponseWriter, status int, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	w.Header().Set("Content-Type", mediaJSON)
	w.WriteHeader(status)
	_, _ = w.Write(append(raw, '\n')) // if the caller is gone, no answer is needed
	return nil
}

// decode reads a JSON object strictly. No body means an empty object.
func decode(r *http.Request, raw []byte, v any) error {
	if len(raw) == 0 {
		return nil
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != mediaJSON {
		return newProblem(http.StatusUnsupportedMediaType, "the body has the content type %q",
			r.Header.Get("Content-Type")).
			withHint("send JSON, with Content-Type: application/json")
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	err := dec.Decode(v)
	if err == nil {
		if _, more := dec.Token(); more != io.EOF {
			err = errors.New("more data follows the object")
		}
	}
	if err != nil {
		return newProblem(http.StatusBadRequest, "decode body: %s", strings.TrimPrefix(err.Error(), "json: ")).
			withHint("GET %s/openapi.json describes the body", apiPrefix)
	}
	return nil
}

// mux makes the handlers of the table. It does not clean paths: a path that is not
// clean is not found.
func (s *Server) mux(table []route) http.Handler {
	methods := map[string]map[string]route{}
	for _, t := range table {
		if methods[t.path] == nil {
			methods[t.path] = map[string]route{}
		}
		methods[t.path][t.method] = t
		if t.method == http.MethodGet {
			methods[t.path][http.MethodHead] = t
		}
	}
	mux := http.NewServeMux()
	for pattern, byMethod := range methods {
		allow := strings.Join(slices.Sorted(maps.Keys(byMethod)), ", ")
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			t, ok := byMethod[r.Method]
			if !ok {
				newProblem(http.StatusMethodNotAllowed, "%s does not allow %s", pattern, r.Method).
					withHint("it allows %s", allow).withHeader("Allow", allow).write(w)
				return
			}
			s.answer(t, w, r)
		})
	}
	mux.HandleFunc("/", notFound)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p := r.URL.EscapedPath(); !strings.HasPrefix(p, "/") || path.Clean(p) != p {
			notFound(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func notFound(w http.ResponseWriter, r *http.Request) {
	newProblem(http.StatusNotFound, "there is nothing at %q", r.URL.Path).
		withHint("GET %s/openapi.json lists all paths", apiPrefix).write(w)
}

// answer serves a request and writes its problem, if it has one.
func (s *Server) answer(t route, w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	if t.endpoint.media != mediaEvents {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, workTimeout)
		defer cancel()
	}
	r = r.WithContext(ctx)
	err := s.try(t, w, r)
	if err == nil {
		return
	}
	p := problemOf(err)
	if p.Status == http.StatusInternalServerError {
		s.log.Error("request failed", "method", t.method, "path", r.URL.Path, "err", err)
	}
	p.write(w)
}

func (s *Server) try(t route, w http.ResponseWriter, r *http.Request) error {
	guard := s.front.Load().guard
	has, err := guard.Rights(r)
	switch {
	case !guard.Demands(): // all are strangers
	case len(has) > 0:
		crowd.Trust(r)
	default:
		w.Header().Set("Connection", "close") // strangers keep no connection
	}
	if err != nil && t.scope != callers.None {
		return wrong(err, r)
	}
	if p := check(guard, r, has, t); p != nil {
		return p
	}
	r = r.WithContext(withRights(r.Context(), has, t.scope))
	if err := checkQuery(r, t.query); err != nil {
		return err
	}
	body, err := readBody(w, r)
	if err != nil {
		return err
	}
	if len(body) > 0 && t.endpoint.request == nil {
		return newProblem(http.StatusBadRequest, "%s %s takes no body", t.method, t.path)
	}
	return t.endpoint.serve(s, w, r, body)
}

// readBody reads the whole body and then removes the read deadline. The server goes
// on reading to notice when the caller hangs up, and the deadline would look like
// that.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBodyBytes))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, newProblem(http.StatusRequestEntityTooLarge, "the body has more than %d bytes", tooLarge.Limit).
			withHeader("Connection", "close")
	case err != nil:
		return nil, newProblem(http.StatusBadRequest, "read body: %s", err).withHeader("Connection", "close")
	}
	if err := http.NewResponseController(w).SetReadDeadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("remove read deadline: %w", err)
	}
	return body, nil
}

func checkQuery(r *http.Request, known []parameter) error {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return newProblem(http.StatusBadRequest, "parse query: %s", err)
	}
	for name, given := range values {
		i := slices.IndexFunc(known, func(p parameter) bool { return p.name == name })
		if i < 0 {
			return newProblem(http.StatusBadRequest, "the parameter %q is not known", name)
		}
		if len(given) > 1 {
			return newProblem(http.StatusBadRequest, "the parameter %q is given %d times", name, len(given))
		}
		if err := known[i].check(given[0]); err != nil {
			return newProblem(http.StatusBadRequest, "the parameter %s: %s", name, err)
		}
	}
	return nil
}
