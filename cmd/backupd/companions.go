package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/companion"
	"github.com/etcd-backupd/backupd/internal/disk"
	"github.com/etcd-backupd/backupd/internal/kubeapi"
	"github.com/etcd-backupd/backupd/internal/location"
	"github.com/etcd-backupd/backupd/internal/members/from"
)

// companionFlags name the files that are stored with a snapshot.
type companionFlags struct {
	paths       []string
	from        []string
	secrets     []string
	kubeconfig  string
	unencrypted bool
}

func (o *companionFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVar(&o.paths, "companion", nil,
		"file or folder of this host that is stored with the snapshot: certificates, settings (repeatable)")
	f.StringArrayVar(&o.from, "companion-from", nil,
		"file that starts etcd on this host, as of 'restore --from': it is stored with all that it refers to (repeatable)")
	f.StringArrayVar(&o.secrets, "companion-secret", nil,
		"Secret of Kubernetes that is stored with the snapshot, as NAMESPACE/NAME (repeatable)")
	f.StringVar(&o.kubeconfig, "kubeconfig", "",
		"file that says which API server has the Secrets, and who asks it (default the service account of the pod)")
	f.BoolVar(&o.unencrypted, "companions-unencrypted", false,
		"store them although the snapshot is not encrypted: everybody who reads the repository can read them")
	mustRegister(cmd.MarkFlagFilename("companion"))
	mustRegister(cmd.MarkFlagFilename("companion-from"))
	mustRegister(cmd.MarkFlagFilename("kubeconfig"))
}

// named returns the files and Secrets.
func (o *companionFlags) named() (companion.Files, error) {
	if strings.ContainsAny(o.kubeconfig, "\r\n") { // with its token in it
		return companion.Files{}, &usageError{errors.New("--kubeconfig: want the name of a file, and not what it holds")}
	}
	files := companion.Of(companion.Files{
		Paths: allAbsolute(o.paths), From: allAbsolute(o.from), Trace: from.Trace,
		Secrets: o.secrets, Kubeconfig: absolute(o.kubeconfig),
	})
	if err := cmp.Or(companion.CheckPaths(files.Paths), companion.CheckPaths(files.From)); err != nil {
		return companion.Files{}, &usageError{fmt.Errorf("--companion: %w", err)}
	}
	if err := companion.CheckSecrets(files.Secrets); err != nil {
		return companion.Files{}, &usageError{fmt.Errorf("--companion-secret: %w", err)}
	}
	if files.Kubeconfig != "" && len(files.Secrets) == 0 {
		return companion.Files{}, &usageError{errors.New("--kubeconfig needs --companion-secret: it names no Secret")}
	}
	if o.unencrypted && files.None() {
		return companion.Files{}, &usageError{errors.New("--companions-unencrypted needs --companion: it names no file")}
	}
	return files, nil
}

// files returns the files, or refuses to store them where anybody may read them. Nothing was
// asked of etcd or of a store before.
func (o *companionFlags) files(cmd *cobra.Command, to codec.Recipients) (companion.Files, error) {
	files, err := o.named()
	switch {
	case err != nil:
		return companion.Files{}, err
	case o.unencrypted && to.Len() > 0:
		return companion.Files{}, &usageError{errors.New("--companions-unencrypted and recipients exclude each other")}
	case !files.None() && to.Len() == 0 && !o.unencrypted:
		return companion.Files{}, withHints(&backup.RefusedError{
			Reason: "the companion files may be keys, and the snapshot would not be encrypted: no recipient was given"},
			"to encrypt it: "+commandWith(cmd, []string{"unencrypted"}, "--recipient=age1..."),
			"to store them in plain text all the same: "+commandWith(cmd, nil, "--companions-unencrypted"))
	}
	return files, o.checkAccess(files)
}

// checkAccess refuses a kubeconfig that is not followed. Nothing is asked of the API server yet: if
// that does not answer the snapshot is stored without the Secrets.
func (o *companionFlags) checkAccess(files companion.Files) error {
	if len(files.Secrets) == 0 {
		return nil
	}
	client, err := kubeapi.Open(files.Kubeconfig)
	switch {
	case errors.Is(err, kubeapi.ErrNoPod):
		return &usageError{backup.WithHint(fmt.Errorf("--companion-secret: %w", err),
			"give --kubeconfig=FILE; the variable KUBECONFIG is not read")}
	case err != nil:
		return fmt.Errorf("--companion-secret: %w", err)
	}
	client.Close()
	return nil
}

func allAbsolute(paths []string) []string {
	var out []string
	for _, p := range paths {
		out = append(out, absolute(p))
	}
	return out
}

type companionsOptions struct {
	repo      repoFlags
	identity  identityFlag
	outputDir string
}

func newCompanionsCommand(a *app) *cobra.Command {
	var o companionsOptions
	cmd := &cobra.Command{
		Use:   "companions [--repo REPO] ID|latest [--output-dir DIR]",
		Short: "List the companion files of a snapshot, or put them into a new folder",
		Long: `List the companion files of a snapshot: files of a host that were stored with it because a
restore may need them, such as certificates and settings, and Secrets of Kubernetes. See
--companion and --companion-secret of 'backupd backup', and companions in the configuration.

With --output-dir they are put into that folder, which is made or must be empty: each at its
path below it, with its permissions, and owned by who runs the command. They are never put
into their own places: compare them with what is there, and copy what is needed. Nothing is
written unless every byte is what the manifest says (else the exit code is 4).

A Secret is below kubernetes.io/secrets/NAMESPACE/NAME there: each key of it as a file in data, and
secret.json, which 'kubectl apply --server-side -f' makes a Secret of again.

` + latestHelp + exitHelp,
		Example: `  backupd companions --repo s3://backups/etcd latest
  backupd companions --repo s3://backups/etcd latest --identity key.txt --output-dir /root/found
  diff -r --no-dereference /root/found/etc/kubernetes/pki /etc/kubernetes/pki`,
		Args:              oneReference,
		ValidArgsFunction: completeIDs(&o.repo),
		RunE:              func(cmd *cobra.Command, args []string) error { return runCompanions(cmd, a, o, args[0]) },
	}
	o.repo.register(cmd)
	registerConfigured(cmd)
	o.repo.registerTimeline(cmd, latestOfTimeline)
	o.identity.register(cmd)
	cmd.Flags().StringVar(&o.outputDir, "output-dir", "", "new or empty folder for the files")
	mustRegister(cmd.MarkFlagDirname("output-dir"))
	return cmd
}

// checkOutput refuses to write plain keys where only backupd writes, and would not know them.
func (o *companionsOptions) checkOutput() error {
	if o.outputDir == "" {
		return nil
	}
	where, err := location.Parse(o.repo.repo)
	if err != nil {
		where = location.Location{} // opening it says so
	}
	for _, of := range []struct{ what, dir string }{
		{"the repository", where.Path}, {"the spool", os.Getenv("BACKUPD_SPOOL")},
	} {
		if of.dir == "" {
			continue
		}
		inside, err := disk.Holds(of.dir, absolute(o.outputDir))
		if err != nil {
			return fmt.Errorf("--output-dir: %w", err)
		}
		if inside {
			return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
				"--output-dir %s is in %s, %s, where only backupd writes", o.outputDir, of.what, of.dir)},
				"give --output-dir a place outside")
		}
	}
	return nil
}

// companionList is the answer for machines.
type companionList struct {
	Cluster    string             `json:"cluster"`
	ID         backup.SnapshotID  `json:"id"`
	OutputDir  string             `json:"outputDir,omitempty"`
	Companions *backup.Companions `json:"companions"`
}

func runCompanions(cmd *cobra.Command, a *app, o companionsOptions, ref string) error {
	ctx := cmd.Context()
	if err := o.checkOutput(); err != nil {
		return err
	}
	ids, err := o.identity.read(a)
	if err != nil {
		return err
	}
	repo, err := o.repo.openToRead(ctx, a)
	if err != nil {
		return err
	}
	in, item, err := o.repo.find(cmd, repo, ref)
	if err != nil {
		return err
	}
	m, err := in.Manifest(ctx, item)
	if err != nil {
		return explainDamage(cmd, in, item, err)
	}
	if m.FilesKey() == "" {
		return backup.WithHint(fmt.Errorf("snapshot %s: %w", m.ID, companion.ErrNone),
			"'backupd show' says of each snapshot what was stored with it, and what was missing")
	}
	list := companionList{Cluster: in.Name(), ID: m.ID, OutputDir: absolute(o.outputDir), Companions: m.Companions}
	if list.OutputDir != "" {
		content, err := companion.Read(ctx, in.Data(), m, ids)
		if err == nil {
			err = content.Extract(list.OutputDir)
		}
		if err != nil {
			return fmt.Errorf("companion files of snapshot %s: %w", m.ID, err)
		}
	}
	if printed, err := a.document(kindCompanions, list); printed {
		return err
	}
	if err := printCompanions(a.stdout, m.Companions); err != nil || list.OutputDir == "" {
		return err
	}
	where := filepath.Join(list.OutputDir, m.Companions.Files[0].Path)
	_, err = fmt.Fprintf(a.stdout, "They are below %s: the first is %s\n", list.OutputDir, where)
	return err
}

// printCompanions lists what was stored with a snapshot, and what was missing then.
func printCompanions(w io.Writer, c *backup.Companions) error {
	if c == nil {
		return nil
	}
	size, of := "", "of host "+c.Host
	if c.Stored.Bytes > 0 {
		size = ", stored " + humanize.IBytes(uint64(c.Stored.Bytes))
	}
	if len(c.Paths) == 0 { // the host is a pod like another
		of = "of Kubernetes"
	}
	fmt.Fprintf(w, "  companions %s, read at %s: %s%s\n", of, c.At.Format(time.RFC3339),
		count(len(c.Files), "file", "files"), size)
	t := newColumns(w)
	for _, f := range c.Files {
		if f.Link != "" {
			t.row("    "+f.Path, "link", "to "+f.Link)
			continue
		}
		t.row("    "+f.Path, f.Mode, humanize.IBytes(uint64(f.Bytes)), f.SHA256.String())
	}
	for _, f := range c.From {
		t.row("    "+f, "starts etcd", "for 'restore --from-snapshot'")
	}
	for _, name := range c.Secrets {
		if slices.ContainsFunc(c.Files, func(f backup.CompanionFile) bool {
			return f.Path == backup.SecretPath(name)+"/secret.json"
		}) {
			t.row("    Secret "+name, "stored", "for 'kubectl apply --server-side -f', as secret.json")
		}
	}
	for _, m := range c.Missing {
		t.row("    "+m.Path, "MISSING", m.Reason)
	}
	return t.flush()
}
