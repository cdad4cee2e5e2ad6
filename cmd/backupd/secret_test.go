package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestIdentity_Junk: the error shows which kinds of keys there are, which are no secrets.
func TestIdentity_Junk(t *testing.T) {
	file := filepath.Join(t.TempDir(), "junk")
	if err := os.WriteFile(file, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	folder := "file://" + t.TempDir()
	if code, stdout, stderr := backupd("init", "--repo", folder); code != exitOK {
		t.Fatal(code, stdout, stderr)
	}
	_, _, stderr := backupd("verify", "latest", "--repo", folder, "--identity", file)
	if !strings.Contains(stderr, "line 1 is no age identity (want the secret key that age-keygen prints") ||
		strings.Contains(stderr, "*") {
		t.Errorf("got %s", stderr)
	}
}

// TestNoSecretIsRepeated: a secret in a place where none belongs is refused, and stands in
// no output.
func TestNoSecretIsRepeated(t *testing.T) {
	const (
		credentials = "must not hold credentials"
		login       = "must not hold a user or a password"
		more        = "an endpoint ends with its port"
		key         = "this is a secret key, and not the name of a file"
	)
	folder := "file://" + t.TempDir()
	for _, tt := range []struct {
		env, line string
		code      int
		want      string
	}{
		{"", "list --repo s3://AKIA:SECRET@bucket/prefix", 64, credentials},
		{"", "list --repo s3://AKIA:SECRET@bucket/prefix", 64, "Hint: give them by --s3-credentials-file"},
		{"", "list --repo s3://AKIA:SEC/SECRET@bucket", 64, credentials},
		{"", "list --repo s3://AKIA:SECRET", 64, credentials},
		{"", "list --repo s3://bucket?secret=SECRET", 64, "no settings after ?"},
		{"", "init --repo s3://bucket/prefix?secret=SECRET", 64, "Hint: they have flags"},
		{"", "init --repo s3://AKIA:SECRET@bucket", 64, credentials},
		{"", "init --repo https://AKIA:SECRET@s3.example.net/bucket", 64, credentials},
		{"", "prune --repo s3://AKIA:SECRET@bucket --cluster c", 64, credentials},
		{"", "backup --repo s3://AKIA:SECRET@bucket --cluster c", 64, credentials},
		{"", "copy --from s3://AKIA:SECRET@bucket --to " + folder, 64, credentials},
		{"", "copy --from s3://AKIA:SECRET --to " + folder, 64, credentials},
		{"", "copy --from " + folder + " --to AKIA:SECRET@bucket", 64, "--to"},
		{"BACKUPD_REPO=s3://AKIA:SECRET@bucket", "list", 64, credentials},
		{"", "list --repo s3://b --s3-region r --s3-endpoint https://AKIA:SECRET@127.0.0.1:1", 64, credentials},
		{"BACKUPD_S3_ENDPOINT=https://AKIA:SECRET@127.0.0.1:1", "list --repo s3://b --s3-region r", 64, credentials},
		{"AWS_ENDPOINT_URL_S3=https://AKIA:SECRET@127.0.0.1:1", "list --repo s3://b --s3-region r", 64, credentials},
		{"", "list --repo s3://b --s3-region r --s3-endpoint http://AKIA:SECRET", 64, credentials},
		{"", "list --repo s3://b --s3-region r --s3-endpoint ftp://127.0.0.1:1?k=SECRET", 64, "want http://HOST"},
		{"", "status --server http://user:SECRET@127.0.0.1:1", 64, login},
		{"BACKUPD_SERVER=http://user:SECRET@127.0.0.1:1", "status", 64, login},
		{"", "status --server http://127.0.0.1:1/?token=SECRET", 64, "want http://HOST:PORT"},
		{"", "snapshot save s.db --endpoints http://root:SECRET@127.0.0.1:1", 64, login},
		{"", "snapshot save s.db --endpoints http://root:SECRET", 64, login},
		{"ETCDCTL_ENDPOINTS=http://root:SECRET@127.0.0.1:1", "snapshot save s.db", 64, login},
		{"", "snapshot save s.db --endpoints http://127.0.0.1:1/?password=SECRET", 64, more},
		{"", "snapshot save s.db --endpoints 127.0.0.1:1/SECRET", 64, more},
		{"", "snapshot save s.db --endpoints 127.0.0.1:1?p=\"SECRET", 64, more},
		{"ETCDCTL_ENDPOINTS=http://127.0.0.1:1?SECRET", "snapshot save s.db", 64, more},
		{"", "verify --repo " + folder + " latest --spool-min-free https://u:SECRET@h", 64, "invalid argument"},
		{"BACKUPD_SPOOL_MIN_FREE=https://u:SECRET@h", "verify --repo " + folder + " latest", 64, "invalid argument"},
		{"", "restore latest --name m --data-dir d --repo " + folder + " --identity AGE-SECRET-KEY-1SECRET", 64, key},
		{"", "show latest --repo " + folder + " --identity AGE-SECRET-KEY-1SECRET", 64, "Hint: write the key into a file"},
		{"BACKUPD_IDENTITY=AGE-SECRET-KEY-1SECRET", "verify latest --repo " + folder, 64, key},
		{"BACKUPD_IDENTITY=age-secret-key-pq-1SECRET", "verify latest --repo " + folder, 64, key},
		{"", "backup --cluster c --repo " + folder + " --recipient AGE-SECRET-KEY-1SECRET", 64, "give the public key"},
		{"", "backup --cluster c --repo " + folder + " --recipients-file AGE-SECRET-KEY-1SECRET", 64, key},
		{"", "snapshot restore s.db --data-dir d --name a --initial-cluster a=http://u:SECRET@h:1", 64, login},
		{"", "snapshot restore s.db --data-dir d --name a --initial-cluster b=http://h:2,a=http://u:x,SECRET@h:1", 64, login},
		{"", "snapshot restore s.db --data-dir d --initial-advertise-peer-urls http://h:1,http://u:SECRET@h:1", 64, login},
		{"", "restore latest --data-dir d --name a --repo " + folder + " --initial-cluster a=http://SECRET@h:1", 64, login},
		{"", "AGE-SECRET-KEY-1SECRET", 64, "unknown command"},
		{"", "snapshot status AGE-SECRET-KEY-1SECRET", 5, "no such file"},
	} {
		for _, format := range []string{"simple", "json"} {
			t.Run(tt.env+" "+tt.line, func(t *testing.T) {
				if name, value, ok := strings.Cut(tt.env, "="); ok {
					t.Setenv(name, value)
				}
				args := append(strings.Fields(tt.line), "--write-out", format, "--log-level", "debug")
				code, stdout, stderr := backupd(args...)
				if code != tt.code || !strings.Contains(stderr, tt.want) || strings.Contains(stdout+stderr, "SECRET") {
					t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
				}
			})
		}
	}
}
