package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	agelib "filippo.io/age"
	"github.com/klauspost/compress/zstd"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository/lineage"
	"github.com/etcd-backupd/backupd/internal/rescue"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

func TestMain(m *testing.M) {
	testserver.RunChild()
	if code, ok := rescue.ChildMain(); ok {
		os.Exit(code)
	}
	packagedConfig = cmp.Or(os.Getenv("PACKAGED_CONFIG"), "/nowhere") // and not that of this machine
	testscript.Main(m, map[string]func(){"backupd": func() {
		for _, kv := range os.Environ() {
			if name, value, _ := strings.Cut(kv, "="); value == notSet {
				_ = os.Unsetenv(name)
			}
		}
		main()
	}})
}

// notSet is the value of a variable that a script has unset. A script cannot take one away.
const notSet = "not set"

// TestScripts runs every scenario of the command line against a real etcd of
// three members and a real S3 server. What a script may use:
//
//	$EP        endpoints of all members        $EP1 to $EP3  each alone
//	$REPO      a fresh file:// repository      $S3   a fresh s3:// repository
//	$ETCD, $ETCDCTL, $ETCDUTL                  etcd and its own tools
//	$KUBECONFIG_FILE                           of an API server with the Secret prod/certs
//	unset NAME...                              takes variables away
//	field NAME WANT                            of the JSON on the last stdout
//	code N backupd ...                         the exact exit code
//	again MANIFEST BY REVISIONS                one more snapshot, as if begun so much later
//	elsewhere ACCEPTANCE HOST AGE              the restore was begun there, so long ago
//	goneon MANIFEST ACCEPTANCE BY [WHY]        a backup of the cluster that a restore has made; WHY it is unconfirmed
//	agekey KEY RECIPIENT                       writes an identity and its recipient
//	plain KEY OBJECT FILE                      decrypts and decompresses without backupd
func TestScripts(t *testing.T) { runScripts(t, "testdata") }

func runScripts(t *testing.T, dir string) {
	t.Helper()
	c := testserver.StartCluster(t, testserver.Options{Version: "3.7", Size: 3})
	testserver.Fill(t, c.Client(t), testserver.FillOptions{Seed: 1, Compact: true})
	c.WaitStorageVersion(t, "3.7.0")
	kube := testserver.StartFakeKube(t)
	kube.Set("prod/certs", map[string]string{"tls.key": "KEY", "ca.crt": "CERTIFICATE"})
	files, err := filepath.Glob(filepath.Join(dir, "*.txtar"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts in %s: %v", dir, err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 dir,
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			s3 := testserver.StartS3(t)
			for _, kv := range s3.Env() {
				if name, value, ok := strings.Cut(kv, "="); ok {
					env.Setenv(name, value)
				}
			}
			env.Setenv("S3", s3.URL("prefix"))
			env.Setenv("S3DIR", s3.Dir())
			env.Setenv("EP", strings.Join(c.Endpoints(), ","))
			for i, ep := range c.Endpoints() {
				env.Setenv(fmt.Sprintf("EP%d", i+1), ep)
			}
			env.Setenv("REPO", "file://"+filepath.Join(env.WorkDir, "repo"))
			env.Setenv("ETCDCTL", testserver.Binary(t, "3.7", "etcdctl"))
			env.Setenv("ETCDUTL", testserver.Binary(t, "3.7", "etcdutl"))
			env.Setenv("ETCD", testserver.Binary(t, "3.7", "etcd"))
			env.Setenv("KUBECONFIG_FILE", kube.Kubeconfig)
			env.Setenv("TMPDIR", env.WorkDir)
			env.Setenv("BACKUPD_SPOOL_MIN_FREE", "0B") // the machine's disk may be nearly full
			env.Setenv("FREE1", testserver.FreeURL(t))
			env.Setenv("FREE2", testserver.FreeURL(t))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"field": checkField, "code": checkCode, "flip": flipByte, "empty": checkEmpty, "glob": setGlob,
			"unset": unset, "again": makeAgain, "elsewhere": beginElsewhere,
			"goneon": goOn, "agekey": makeKey, "plain": decodePlain, "halfundo": halfUndo, "ofhost": ofHost,
		},
	})
}

// checkField compares one field, named with dots, of the JSON on stdout.
func checkField(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: field NAME WANT")
	}
	var v any
	dec := json.NewDecoder(strings.NewReader(ts.ReadFile("stdout")))
	dec.UseNumber()
	ts.Check(dec.Decode(&v))
	if dec.More() {
		ts.Fatalf("more than one document")
	}
	if strings.Contains(ts.ReadFile("stdout"), ":null") {
		ts.Fatalf("a list is null")
	}
	for _, name := range strings.Split(args[0], ".") {
		switch x := v.(type) {
		case map[string]any:
			got, ok := x[name]
			if !ok {
				ts.Fatalf("no field %s in %v", name, x)
			}
			v = got
		case []any:
			var i int
			if _, err := fmt.Sscan(name, &i); err != nil || i >= len(x) {
				ts.Fatalf("no element %s in %v", name, x)
			}
			v = x[i]
		default:
			ts.Fatalf("no field %s in %v", name, x)
		}
	}
	if got := fmt.Sprint(v); (got == args[1]) == neg {
		ts.Fatalf("field %s is %q", args[0], got)
	}
}

func unset(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: unset NAME...")
	}
	for _, name := range args {
		ts.Setenv(name, notSet)
	}
}

// checkCode runs backupd and compares its exact exit code.
func checkCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 || args[1] != "backupd" {
		ts.Fatalf("usage: code N backupd ...")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if fmt.Sprint(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

// flipByte changes one byte in the middle of a file.
func flipByte(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: flip FILE")
	}
	name := ts.MkAbs(args[0])
	raw, err := os.ReadFile(name)
	ts.Check(err)
	raw[len(raw)/2] ^= 0x10
	ts.Check(os.WriteFile(name, raw, 0o600))
}

// makeAgain makes a copy of a snapshot that was begun so much later by some clock,
// and is so many revisions further in the same history.
func makeAgain(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: again MANIFEST BY REVISIONS")
	}
	path := ts.MkAbs(args[0])
	raw, err := os.ReadFile(path)
	ts.Check(err)
	m, err := backup.ParseManifest(raw)
	ts.Check(err)
	by, err := time.ParseDuration(args[1])
	ts.Check(err)
	further, err := strconv.Atoi(args[2])
	ts.Check(err)
	root := strings.TrimSuffix(path, m.Key())
	data, err := os.ReadFile(filepath.Join(root, m.DataKey()))
	ts.Check(err)
	m.StartedAt, m.Revision = m.StartedAt.Add(by), m.Revision+backup.Revision(further)
	m.ID = backup.NewDataName(m.StartedAt).WithRevision(m.Revision)
	raw, err = m.Marshal()
	ts.Check(err)
	ts.Check(os.WriteFile(filepath.Join(root, m.DataKey()), data, 0o600))
	ts.Check(os.WriteFile(filepath.Join(root, m.Key()), raw, 0o600))
}

// goOn makes a copy of a snapshot that is of the cluster that a restore has announced.
func goOn(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: goneon MANIFEST ACCEPTANCE BY [WHY]")
	}
	path := ts.MkAbs(args[0])
	raw, err := os.ReadFile(path)
	ts.Check(err)
	m, err := backup.ParseManifest(raw)
	ts.Check(err)
	raw, err = os.ReadFile(ts.MkAbs(args[1]))
	ts.Check(err)
	a, err := lineage.Parse(raw)
	ts.Check(err)
	by, err := time.ParseDuration(args[2])
	ts.Check(err)
	root, data := strings.TrimSuffix(path, m.Key()), m.DataKey()
	raw, err = os.ReadFile(filepath.Join(root, data))
	ts.Check(err)
	m.Origin = &backup.Origin{Timeline: m.Timeline, Snapshot: m.ID, Reason: "it was restored"}
	m.NewestTimeline, m.Timeline, m.ClusterID = m.Timeline, backup.NewTimeline(1), a.ClusterID
	m.StartedAt, m.Unconfirmed = m.StartedAt.Add(by), args[3:]
	m.ID = backup.NewDataName(m.StartedAt).WithRevision(m.Revision)
	ts.Check(os.WriteFile(filepath.Join(root, m.DataKey()), raw, 0o600))
	raw, err = m.Marshal()
	ts.Check(err)
	ts.Check(os.WriteFile(filepath.Join(root, m.Key()), raw, 0o600))
}

// beginElsewhere changes which host has begun a restore, and when.
func beginElsewhere(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: elsewhere ACCEPTANCE HOST AGE")
	}
	path := ts.MkAbs(args[0])
	raw, err := os.ReadFile(path)
	ts.Check(err)
	a, err := lineage.Parse(raw)
	ts.Check(err)
	ago, err := time.ParseDuration(args[2])
	ts.Check(err)
	a.Begun.Host, a.At = args[1], time.Now().Add(-ago).UTC().Truncate(time.Second)
	raw, err = a.Marshal()
	ts.Check(err)
	ts.Check(os.WriteFile(path, raw, 0o600))
}

// checkEmpty requires that a folder holds nothing at all.
func checkEmpty(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: empty DIR")
	}
	entries, err := os.ReadDir(ts.MkAbs(args[0]))
	ts.Check(err)
	for _, e := range entries {
		ts.Fatalf("%s is in %s", e.Name(), args[0])
	}
}

// setGlob sets a variable to the one file that a pattern matches.
func setGlob(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: glob VARIABLE PATTERN")
	}
	found, err := filepath.Glob(ts.MkAbs(args[1]))
	ts.Check(err)
	if len(found) != 1 {
		ts.Fatalf("%s matches %q", args[1], found)
	}
	ts.Setenv(args[0], found[0])
}

// makeKey writes what age-keygen would.
func makeKey(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: agekey KEY RECIPIENT")
	}
	id, err := agelib.GenerateX25519Identity()
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(id.String()+"\n"), 0o600))
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(id.Recipient().String()+"\n"), 0o600))
}

// decodePlain does what `age -d -i KEY OBJECT | zstd -d > FILE` does.
func decodePlain(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: plain KEY OBJECT FILE")
	}
	ids, err := agelib.ParseIdentities(strings.NewReader(ts.ReadFile(args[0])))
	ts.Check(err)
	object, err := os.Open(ts.MkAbs(args[1]))
	ts.Check(err)
	defer object.Close()
	decrypted, err := agelib.Decrypt(object, ids...)
	ts.Check(err)
	d, err := zstd.NewReader(decrypted)
	ts.Check(err)
	defer d.Close()
	plain, err := io.ReadAll(d)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), plain, 0o600))
}
