package location

import (
	"log/slog"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/kballard/go-shellquote"

	"github.com/etcd-backupd/backupd/internal/storage/file"
	"github.com/etcd-backupd/backupd/internal/storage/s3"
)

// Options say how to reach a store. There is one field for each kind of store
// whose URL is not enough; it has no effect on URLs of other kinds.
//
// Flags, the configuration's keys and their documentation are made from the
// fields that have a tag yaml, and from the tags of the fields in them: yaml is
// the key, default and oneof say which values there are.
type Options struct {
	// S3 says how to reach the bucket of an s3:// URL. The AWS SDK finds the rest
	// in its own sources: AWS_* variables, the shared configuration, the role of
	// the machine.
	S3 s3.Options `yaml:"s3"`
	// File says how a repository in a folder, file://, uses its file system.
	File file.Options `yaml:"file"`

	Logger *slog.Logger // default: discards
}

// usage describes the settings, by section and key.
var usage = map[string]string{
	"s3-endpoint":         "URL of an S3 service other than Amazon's",
	"s3-region":           "region of the bucket",
	"s3-path-style":       "bucket in the path of the URL: on, off (default: on with --s3-endpoint)",
	"s3-ca-file":          "CA bundle that the service's certificate is verified against",
	"s3-credentials-file": "file with aws_access_key_id and aws_secret_access_key (default: the AWS SDK's chain)",
	"s3-profile":          "profile in the credentials or AWS configuration file",
	"s3-storage-class":    "storage class of new objects",
	"s3-sse":              "server-side encryption of new objects: AES256, aws:kms",
	"s3-sse-kms-key-id":   "key for --s3-sse aws:kms",
	"s3-sse-c-key-file":   "file with a customer key of 32 bytes for SSE-C",
	"s3-checksum":         "checksum of uploads: auto, sha256, md5, none (default: auto)",
	"file-min-free":       "stays free on the folder's file system: a size or 20% (default: 15%, 256MiB to 2GiB)",
}

// Setting is one text of [Options] that a user may give.
type Setting struct {
	Section string  // the kind of store, as in the configuration: s3
	Key     string  // the key in the section: path-style
	Value   *string // in the Options
	Default string  // the meaning of an empty value
	Choices []string
	Usage   string
}

// Settings returns the settings of o.
func (o *Options) Settings() []Setting {
	var out []Setting
	for section, fields := range tagged(reflect.ValueOf(o).Elem()) {
		for f, value := range tagged(fields) {
			s := Setting{Section: section.Get("yaml"), Key: f.Get("yaml"), Value: value.Addr().Interface().(*string)}
			s.Default, s.Choices = f.Get("default"), strings.Fields(f.Get("oneof"))
			s.Usage = usage[s.Section+"-"+s.Key]
			out = append(out, s)
		}
	}
	return out
}

// tagged yields the fields of a struct that have a key, by their tags.
func tagged(v reflect.Value) func(yield func(reflect.StructTag, reflect.Value) bool) {
	return func(yield func(reflect.StructTag, reflect.Value) bool) {
		for i := range v.NumField() {
			if tag := v.Type().Field(i).Tag; tag.Get("yaml") != "" && !yield(tag, v.Field(i)) {
				return
			}
		}
	}
}

// Unused returns the section of o that has settings and no effect on l, or
// nothing.
func (l Location) Unused(o Options) string {
	for _, s := range o.Settings() {
		if s.Section != l.section() && *s.Value != "" && *s.Value != s.Default {
			return s.Section
		}
	}
	return ""
}

// Flags returns the flags of the command line that lead to a repository with these
// options, quoted for a shell.
func (o *Options) Flags(url string) string {
	words, idle := []string{"--repo", url}, Idle(url)
	for _, s := range o.Settings() {
		name := s.Section + "-" + s.Key
		if v := *s.Value; v != "" && v != s.Default && !slices.Contains(idle, name) {
			words = append(words, "--"+name, v)
		}
	}
	return shellquote.Join(words...)
}

// Idle returns the names of the flags of settings that have no effect on the repository at an
// address. The environment may set them all the same, for other commands.
func Idle(url string) (names []string) {
	l, err := Parse(url)
	if err != nil {
		return nil
	}
	var o Options
	for _, s := range o.Settings() {
		if s.Section != l.section() {
			names = append(names, s.Section+"-"+s.Key)
		}
	}
	return names
}

// Removal returns the command line that removes an object of a repository by hand, without
// backupd: rm, or the AWS CLI. It is quoted for a shell.
func (o *Options) Removal(url, key string) string {
	if l, err := Parse(url); err == nil && l.IsFolder() {
		return shellquote.Join("rm", filepath.Join(l.Path, key))
	}
	words := []string{"aws", "s3", "rm", strings.TrimSuffix(url, "/") + "/" + key}
	if o.S3.Endpoint != "" {
		words = append(words, "--endpoint-url", o.S3.Endpoint)
	}
	return shellquote.Join(words...)
}
