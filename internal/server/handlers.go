package server

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/google/jsonschema-go/jsonschema"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/server/callers"
)

const apiPrefix = "/api/v1"

// parameter is a parameter of a query.
type parameter struct {
	name, description string
	schema            *jsonschema.Schema
	check             func(string) error
}

const (
	defaultLimit = 100
	maxLimit     = 1000
)

var (
	limitParameter = parameter{"limit", fmt.Sprintf("how many to return; %d by default", defaultLimit),
		&jsonschema.Schema{Type: "integer", Minimum: jsonschema.Ptr(1.0), Maximum: jsonschema.Ptr(float64(maxLimit))},
		func(s string) error {
			if n, err := strconv.Atoi(s); err != nil || n < 1 || n > maxLimit {
				return fmt.Errorf("%q is not a number from 1 to %d", s, maxLimit)
			}
			return nil
		}}
	afterParameter = parameter{"after", "return the snapshots that follow this id; the field next of the last page",
		&jsonschema.Schema{Type: "string"},
		func(s string) error { _, err := backup.ParseSnapshotID(s); return err }}
)

// routes lists every route of the server. None restores or deletes.
func routes(metrics http.Handler) []route {
	const (
		cluster  = apiPrefix + "/repositories/{repository}/clusters/{cluster}"
		snapshot = cluster + "/snapshots/{id}"
	)
	return []route{
		{method: "GET", path: "/healthz", scope: callers.None, id: "health",
			summary: "Whether the process is alive", endpoint: text(health)},
		{method: "GET", path: "/readyz", scope: callers.None, id: "ready",
			summary:  "Whether the daemon guards its clusters, or why not",
			endpoint: text(ready, http.StatusServiceUnavailable)},
		{method: "GET", path: "/metrics", scope: callers.Read, whole: true, id: "metrics",
			summary: "Metrics for Prometheus", endpoint: pass(metrics)},
		{method: "GET", path: apiPrefix + "/openapi.json", scope: callers.Read, id: "describe",
			summary: "This document", endpoint: get(describe)},
		{method: "GET", path: apiPrefix + "/clusters", scope: callers.Read, id: "listClusters",
			summary: "Status of all clusters, once for each repository that keeps one", endpoint: get(listClusters)},
		{method: "GET", path: cluster, scope: callers.Read, id: "getCluster",
			summary: "Status of one cluster", endpoint: get(getCluster, http.StatusNotFound)},
		{method: "GET", path: cluster + "/snapshots", scope: callers.Read, id: "listSnapshots",
			summary: "The snapshots of a cluster, the newest first",
			query:   []parameter{limitParameter, afterParameter}, endpoint: get(listSnapshots, http.StatusNotFound)},
		{method: "GET", path: snapshot, scope: callers.Read, id: "getSnapshot",
			summary: "One snapshot with its manifest", endpoint: get(getSnapshot, http.StatusNotFound)},
		{method: "PUT", path: snapshot + "/pin", scope: callers.Operate, id: "pinSnapshot",
			summary:  "Pin a snapshot: no prune removes it",
			endpoint: put(pinSnapshot, http.StatusNotFound, http.StatusConflict)},
		{method: "POST", path: cluster + "/backups", scope: callers.Operate, id: "startBackup",
			summary: "Start a backup now", endpoint: start(startBackup, http.StatusNotFound, http.StatusConflict)},
		{method: "POST", path: cluster + "/verifications", scope: callers.Operate, id: "startVerification",
			summary:  "Start to read a snapshot back and verify it",
			endpoint: start(startVerification, http.StatusNotFound, http.StatusConflict)},
		{method: "GET", path: cluster + "/prune-plan", scope: callers.Read, id: "getPrunePlan",
			summary:  "The snapshots that a prune would remove now, and why; nothing is removed",
			endpoint: get(getPrunePlan, http.StatusNotFound)},
		{method: "GET", path: apiPrefix + "/jobs", scope: callers.Read, id: "listJobs",
			summary: "Running jobs and the last finished ones, the newest first", endpoint: get(listJobs)},
		{method: "GET", path: apiPrefix + "/jobs/{id}", scope: callers.Read, id: "getJob",
			summary: "One job", endpoint: get(getJob, http.StatusNotFound)},
		{method: "GET", path: apiPrefix + "/jobs/{id}/events", scope: callers.Read, id: "watchJob",
			summary:  "One job as server-sent events of the type job, until the job has ended",
			endpoint: events(watchJob, http.StatusNotFound)},
		{method: "GET", path: apiPrefix + "/events", scope: callers.Read, id: "watchJobs",
			summary: "All jobs as server-sent events of the type job", endpoint: events(watchJobs)},
	}
}

// text answers "ok" in plain text, or with the error of f.
func text(f func(s *Server, r *http.Request) error, problems ...int) endpoint {
	return endpoint{status: http.StatusOK, media: "text/plain", problems: problems,
		serve: func(s *Server, w http.ResponseWriter, r *http.Request, _ []byte) error {
			if err := f(s, r); err != nil {
				return err
			}
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			_, _ = w.Write([]byte("ok\n")) // if the caller is gone, no answer is needed
			return nil
		}}
}

func health(*Server, *http.Request) error { return nil }

// ready tells the reason, which names clusters and addresses, only to who may read all.
func ready(s *Server, r *http.Request) error {
	err := s.backend.Ready()
	if err == nil {
		return nil
	}
	if !sees(r.Context(), "") {
		return newProblem(http.StatusServiceUnavailable, "some cluster is not guarded").
			withHint("the daemon's log says which; so does this address, with a token that may read all clusters")
	}
	p := newProblem(http.StatusServiceUnavailable, "%s", err)
	if hinted := new(backup.HintError); errors.As(err, &hinted) {
		p.Hint = hinted.Configured()
	}
	return p
}

func pass(h http.Handler) endpoint {
	return endpoint{status: http.StatusOK, media: "text/plain",
		serve: func(_ *Server, w http.ResponseWriter, r *http.Request, _ []byte) error {
			h.ServeHTTP(w, r)
			return nil
		}}
}

func listClusters(s *Server, r *http.Request) (ClusterList, error) {
	list := ClusterList{[]Cluster{}}
	for _, c := range s.backend.Clusters() {
		if sees(r.Context(), c.Name) {
			list.Clusters = append(list.Clusters, c)
		}
	}
	return list, nil
}

func getCluster(s *Server, r *http.Request) (Cluster, error) {
	repository, name := r.PathValue("repository"), r.PathValue("cluster")
	for _, c := range s.backend.Clusters() {
		if c.Repository != repository || c.Name != name || !sees(r.Context(), name) {
			continue
		}
		if !mayUse(r.Context(), name) {
			return Cluster{}, tooLittle(callers.Operate)
		}
		return c, nil
	}
	return Cluster{}, fmt.Errorf("cluster %q in repository %q: %w", name, repository, ErrNotFound)
}

// keyOf returns the key of the cluster that the path names.
func keyOf(s *Server, r *http.Request) (Key, error) {
	c, err := getCluster(s, r)
	return Key{c.Repository, c.Name}, err
}

func listSnapshots(s *Server, r *http.Request) (SnapshotList, error) {
	of, err := keyOf(s, r)
	if err != nil {
		return SnapshotList{}, err
	}
	limit := defaultLimit
	if given := r.URL.Query().Get("limit"); given != "" {
		limit, _ = strconv.Atoi(given) // checked before
	}
	// One more snapshot shows whether there is another page.
	found, err := s.backend.Snapshots(r.Context(), of, r.URL.Query().Get("after"), limit+1)
	if err != nil {
		return SnapshotList{}, err
	}
	list := SnapshotList{Snapshots: append([]backup.Row{}, found...)}
	if len(found) > limit {
		list.Snapshots = list.Snapshots[:limit]
		list.Next = string(list.Snapshots[limit-1].ID)
	}
	return list, nil
}

// snapshotOf returns the snapshot that the path names.
func snapshotOf(s *Server, r *http.Request) (of Key, id string, err error) {
	if of, err = keyOf(s, r); err != nil {
		return of, "", err
	}
	if _, err := backup.ParseSnapshotID(r.PathValue("id")); err != nil {
		return of, "", newProblem(http.StatusNotFound, "%s", err)
	}
	return of, r.PathValue("id"), nil
}

func getSnapshot(s *Server, r *http.Request) (SnapshotDetail, error) {
	of, id, err := snapshotOf(s, r)
	if err != nil {
		return SnapshotDetail{}, err
	}
	detail, err := s.backend.Snapshot(r.Context(), of, id)
	if err != nil {
		return SnapshotDetail{}, err
	}
	return *detail, nil
}

const maxReason = 500 // characters

func pinSnapshot(s *Server, r *http.Request, body PinRequest) error {
	of, id, err := snapshotOf(s, r)
	if err != nil {
		return err
	}
	reason := strings.TrimSpace(body.Reason)
	if reason == "" || utf8.RuneCountInString(reason) > maxReason || strings.ContainsFunc(reason, unicode.IsControl) {
		return newProblem(http.StatusBadRequest,
			"the field reason must say why the snapshot must stay, in one line of at most %d characters", maxReason)
	}
	return s.backend.Pin(r.Context(), of, id, reason)
}

func startBackup(s *Server, r *http.Request, _ struct{}) (Job, error) {
	of, err := keyOf(s, r)
	if err != nil {
		return Job{}, err
	}
	return s.backend.StartBackup(of)
}

func startVerification(s *Server, r *http.Request, body VerificationRequest) (Job, error) {
	of, err := keyOf(s, r)
	if err != nil {
		return Job{}, err
	}
	if body.Snapshot != Latest {
		if _, err := backup.ParseSnapshotID(body.Snapshot); err != nil {
			return Job{}, newProblem(http.StatusBadRequest, "the field snapshot: %s, or %q", err, Latest)
		}
	}
	return s.backend.StartVerification(of, body.Snapshot)
}

func getPrunePlan(s *Server, r *http.Request) (PrunePlan, error) {
	of, err := keyOf(s, r)
	if err != nil {
		return PrunePlan{}, err
	}
	decisions, err := s.backend.PrunePlan(r.Context(), of)
	if err != nil {
		return PrunePlan{}, err
	}
	plan := PrunePlan{append([]backup.PruneRow{}, decisions...)}
	for i := range plan.Decisions {
		plan.Decisions[i].Reasons = append([]string{}, plan.Decisions[i].Reasons...)
	}
	return plan, nil
}

// jobsFor returns the jobs that the caller may know of.
func jobsFor(s *Server, r *http.Request) []Job {
	return slices.DeleteFunc(append([]Job{}, s.backend.Jobs()...),
		func(j Job) bool { return !sees(r.Context(), j.Cluster) })
}

func listJobs(s *Server, r *http.Request) (JobList, error) { return JobList{jobsFor(s, r)}, nil }

func getJob(s *Server, r *http.Request) (Job, error) {
	for _, j := range jobsFor(s, r) {
		if j.ID == r.PathValue("id") {
			return j, nil
		}
	}
	return Job{}, fmt.Errorf("job %q: %w", r.PathValue("id"), ErrNotFound)
}
