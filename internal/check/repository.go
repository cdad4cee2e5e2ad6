package check

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/check/certificate"
	"github.com/etcd-backupd/backupd/internal/check/host"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/config"
	"github.com/etcd-backupd/backupd/internal/disk"
	"github.com/etcd-backupd/backupd/internal/health"
	"github.com/etcd-backupd/backupd/internal/location"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/repository/choice"
	"github.com/etcd-backupd/backupd/internal/repository/identity"
	"github.com/etcd-backupd/backupd/internal/repository/pause"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// newestRead is the number of newest manifests that are read.
const newestRead = 3

// stored describes the snapshots of one cluster in a repository.
type stored struct {
	summary repository.Summary
	pinned  int
	recent  []*backup.Manifest // the newest verified ones, the newest first
	in      string             // the id of the repository that is there; empty: that is not known
}

// newest returns the newest verified snapshot, or nil.
func (s *stored) newest() *backup.Manifest {
	if len(s.recent) == 0 {
		return nil
	}
	return s.recent[0]
}

// repositoryCheck checks one repository.
type repositoryCheck struct {
	name string
	conf *config.Repository
	log  *slog.Logger
	now  time.Time
}

// run checks whether the store does all that backups need, and the snapshots of
// each cluster in it.
func (r *repositoryCheck) run(ctx context.Context, clusters []*chosen) []backup.Finding {
	l := list{section: SectionRepository, subject: r.name}
	store, err := r.conf.Open(ctx, r.log)
	if err != nil {
		l.fail(hintOf(err, "correct the repository's url and s3"), "%v", err)
		return l.findings
	}
	checkEncryption(&l, r.conf)
	checkPlace(&l, r.conf)
	id, usable := checkMarker(ctx, &l, r.conf, store)
	for _, c := range clusters {
		if c.conf.Repository == r.name {
			c.stored.in = id
		}
	}
	if !usable {
		return l.findings
	}
	probe(ctx, &l, r.conf, store)
	out := l.findings
	for _, c := range clusters {
		if c.conf.Repository != r.name {
			continue
		}
		held := list{section: SectionRepository, subject: r.name + " " + c.conf.Name}
		r.held(ctx, &held, c, store)
		checkIdentities(ctx, &held, c.conf, r.conf, store, c.stored.newest())
		out = append(out, held.findings...)
	}
	return out
}

// checkEncryption warns of a bucket whose readers can read every secret in etcd.
func checkEncryption(l *list, r *config.Repository) {
	options, err := r.Codec()
	switch {
	case err != nil:
		l.fail("correct the repository's recipients", "%v", err)
	case options.Recipients.Len() > 0:
		l.ok("new snapshots are encrypted (recipients: %d)", options.Recipients.Len())
	case placeOf(r).IsFolder():
	case placeOf(r).EncryptedByKey(r.Options):
		l.ok("the service encrypts new snapshots, with its own key or with one that it gets from backupd")
	default:
		l.warn("make a key with age-keygen, keep it elsewhere, and set the repository's recipients",
			"new snapshots are not encrypted: all readers of the bucket can read all of etcd, also Kubernetes' secrets")
	}
}

// placeOf returns where a repository is whose store could be opened.
func placeOf(r *config.Repository) location.Location {
	loc, _ := location.Parse(r.URL) // opening has reported what is wrong with it
	return loc
}

// checkPlace warns of a folder that is lost with this host, or can take the room of an etcd.
func checkPlace(l *list, r *config.Repository) {
	loc := placeOf(r)
	if !loc.IsFolder() {
		return
	}
	fs, err := disk.FileSystemOf(disk.Existing(loc.Path))
	switch {
	case err != nil:
		l.fail("correct the repository's url", "%v", err)
	case fs.Kind == disk.InMemory:
		l.fail("put the repository on a disk, best one of another machine",
			"the folder %s is in memory (%s): the next reboot deletes all backups", loc.Path, fs.Name)
	case fs.Kind != disk.OnNetwork:
		l.warn("copy the folder to another machine, or use a bucket or a network file system",
			"the folder %s is on a disk of this host: if the host is lost, so are the backups", loc.Path)
	}
	if reserve, bad := r.File.Reserve(); err == nil && bad == nil { // else that is reported
		if text, hint := host.ReportRepository(loc.Path, fs, reserve.Of(fs), host.Find("/")); text != "" {
			l.warn(hint, "%s", text)
		}
	}
}

// checkMarker checks whether the place is the repository that it should be, or can
// become one, and returns the id of the one that is there, and whether to go on.
func checkMarker(ctx context.Context, l *list, r *config.Repository, s storage.Store) (id string, usable bool) {
	found, err := repository.Open(ctx, s, r.ID)
	absent := &repository.AbsentError{}
	switch {
	case err == nil && r.ID == "":
		l.add(backup.LevelOK, "set repository-id: "+found.ID()+", and another one at this address is an error",
			"it is repository %s, of %s", found.ID(), found.Created().Format("2006-01-02"))
		return found.ID(), true
	case err == nil:
		l.ok("it is repository %s, of %s, as repository-id says", found.ID(), found.Created().Format("2006-01-02"))
		return found.ID(), true
	case errors.As(err, &absent) && absent.Known == "":
		return "", checkEmpty(ctx, l, r, s, absent)
	case identity.Hint(err, "", "") != "": // another one is there, or the marker is gone
		l.fail(identity.Hint(err, r.Flags(r.URL), "repository-id"), "%v", err)
		return absent.Found, false
	}
	l.fail(hintOf(err, "correct the url, the credentials or the policy of the bucket"), "%v", err)
	return "", false
}

// checkEmpty checks a place without a repository.
func checkEmpty(
	ctx context.Context, l *list, r *config.Repository, s storage.Store, absent *repository.AbsentError,
) bool {
	others, err := foreign(ctx, s)
	switch {
	case errors.Is(err, fs.ErrNotExist): // not only the marker: the bucket or the folder is missing
		l.fail(hintOf(err, absent.Hint(r.Flags(r.URL), "repository-id")), "%v", err)
		return false
	case !r.CreateIfMissing: // what else the place lacks is shown all the same
		l.fail(absent.Hint(r.Flags(r.URL), "repository-id"), "there is no repository")
	case others:
		l.warn("choose another prefix or folder unless this is meant",
			"the place holds objects and is no repository of backupd: the first backup will make it one")
	default: // if it cannot be listed, the probe reports that
		l.ok("there is no repository yet: the first backup makes it")
	}
	return true
}

// held checks the stored snapshots of a cluster.
func (r *repositoryCheck) held(ctx context.Context, l *list, c *chosen, s storage.Store) {
	held := &c.stored
	o, err := repository.At(s, "").Cluster(c.conf.Name).Lenient(c.conf.Policy().CountUnconfirmed).
		Look(ctx, newestRead, nil, r.now)
	switch {
	case errors.Is(err, fs.ErrNotExist): // the first backup makes the folder
		o = &repository.Overview{}
	case err != nil:
		l.fail(hintOf(err, "let the credentials list the bucket below this prefix"), "%v", err)
		return
	}
	held.summary, held.recent = o.Summary(r.now), o.Good
	for _, item := range o.Items {
		if item.Pinned() {
			held.pinned++
		}
		if defect := item.Defect(); defect != nil {
			l.fail("'backupd verify' says more; remove it with 'backupd rm' once there is another",
				"snapshot %s is damaged: %v", item.ID, defect)
		}
	}
	if last := held.summary.Newest; last != nil && last.State() == backup.Suspect {
		l.warn("find the members that are right (etcdctl endpoint hashkv --cluster); "+
			"meanwhile retention removes nothing that is verified",
			"the newest snapshot %s is suspect", last.ID)
	}
	if n := held.summary.Newest; n != nil && n.State() == backup.Unconfirmed && !c.conf.Policy().CountUnconfirmed {
		l.warn("let backupd reach a voting member for HashKV; 'backupd show "+string(n.ID)+"' says why none was compared",
			"the newest snapshot %s is unconfirmed: no voting member was compared with it", n.ID)
	}
	if h := health.Unencrypted(c.conf.Name, o, r.now); h.Level != health.OK && !r.conf.Encrypts() {
		l.warn(h.Hint, "%s", h.Problem)
	}
	if wrong := choice.Untimely(o.Items, r.now); len(wrong) > 0 {
		l.warn("correct the clocks of the hosts that take backups; retention and latest go by the order of the history",
			"the times of some snapshots (%d) contradict the order of the history, for example %s",
			len(wrong), slices.Min(slices.Collect(maps.Keys(wrong))))
	}
	if _, err := o.Timelines.Present(); err != nil {
		l.fail("'backupd timeline list' shows the histories, 'backupd timeline accept' settles which is wanted", "%v", err)
	}
	if future := held.summary.Future; future != nil {
		l.warn("correct the clocks, also those of other hosts that take backups",
			"snapshot %s is from the future (%s ahead): a clock is or was wrong",
			future.ID, certificate.Span(future.ID.Time().Sub(r.now)))
	}
	if !paused(ctx, l, repository.At(s, "").Cluster(c.conf.Name), r.now) {
		checkAge(l, c.conf, held, r.now)
	}
}

// paused reports whether somebody has paused the cluster: then its backups may be old.
func paused(ctx context.Context, l *list, in *repository.Cluster, now time.Time) bool {
	p, err := pause.Now(ctx, in, now)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.warn("'backupd resume "+in.Name()+"' removes a mark that counts for nothing", "%v", err)
	}
	if p != nil {
		l.ok("the cluster is %v", p)
	}
	return p != nil
}

// checkAge compares the newest verified snapshot with the schedule.
func checkAge(l *list, conf *config.Cluster, held *stored, now time.Time) {
	count := fmt.Sprintf("%d verified, %d unconfirmed, %d suspect, %d pinned",
		held.summary.Verified, held.summary.Unconfirmed, held.summary.Suspect, held.pinned)
	newest := held.newest()
	if newest == nil {
		l.warn("start the daemon, or 'backupd backup --once'", "there is no verified snapshot (%s)", count)
		return
	}
	age := now.Sub(newest.StartedAt)
	line, err := conf.Snapshot.Line()
	if err != nil {
		return // checkPlan reports it
	}
	// While nothing changes no snapshot is taken, until max-age forces one.
	distance := line.Longest(now)
	limit := distance + max(distance, conf.Snapshot.MaxAge)
	if age > limit {
		l.warn("backups have stopped: look at 'backupd status' and the daemon's log",
			"the newest verified snapshot %s is %s old, and should be at most %s old (%s)",
			newest.ID, certificate.Span(age), certificate.Span(limit), count)
		return
	}
	l.ok("the newest verified snapshot is %s old (%s)", certificate.Span(max(0, age)), count)
}

// checkIdentities proves that the daemon's keys for verifications decrypt the
// newest snapshot and future ones.
func checkIdentities(
	ctx context.Context, l *list, conf *config.Cluster, repo *config.Repository, s storage.Store,
	newest *backup.Manifest,
) {
	if len(conf.Verify.IdentityFiles) == 0 {
		if newest != nil && newest.Encoding.Encryption != "" || repo.Encrypts() {
			l.add(backup.LevelOK, "run 'backupd verify --identity FILE' on a host that has the secret key",
				"decryption was not tested: verify.identity-files is not set (recommended on most hosts)")
		}
		return
	}
	ids, err := codec.ReadIdentities(conf.Verify.IdentityFiles)
	if err != nil {
		return // checkFiles reports it
	}
	const hint = "add the secret key of one of the repository's recipients to verify.identity-files"
	if options, err := repo.Codec(); err == nil && options.Recipients.Len() > 0 {
		if err := roundTrip(options, ids); err != nil {
			l.fail(hint, "verify.identity-files do not decrypt data for the repository's recipients: %v", err)
		} else {
			l.ok("verify.identity-files decrypt data for the repository's recipients")
		}
	}
	if newest == nil || newest.Encoding.Encryption == "" {
		return
	}
	if err := readBeginning(ctx, s, newest, ids); err != nil {
		l.fail(hint, "the newest snapshot %s cannot be decrypted: %v", newest.ID, err)
		return
	}
	l.ok("the newest snapshot %s can be decrypted", newest.ID)
}

// roundTrip encodes a few bytes and decodes them again.
func roundTrip(o codec.Options, ids codec.Identities) error {
	plain := []byte("backupd check")
	enc, err := codec.NewEncoder(bytes.NewReader(plain), o)
	if err != nil {
		return err
	}
	raw, err := io.ReadAll(enc)
	if err = errors.Join(err, enc.Close()); err != nil {
		return err
	}
	_, sum := enc.Sums()
	want := codec.Want{Plain: backup.BlobOf(plain), Stored: sum}
	dec, err := codec.NewDecoder(bytes.NewReader(raw), o.Encoding(), want, ids)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, dec)
	return errors.Join(err, dec.Close())
}

// readBeginning decodes the first bytes of a snapshot.
func readBeginning(ctx context.Context, s storage.Store, m *backup.Manifest, ids codec.Identities) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	r, err := snapshot.Open(ctx, repository.At(s, "").Cluster(m.Cluster), m, ids, nil)
	if err != nil {
		return err
	}
	_, err = io.ReadFull(r, make([]byte, 4096))
	return errors.Join(err, r.Close())
}
