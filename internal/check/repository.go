package check

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/config"
	"github.com/etcd-backupd/backupd/internal/location"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// newestRead is how many of the newest manifests are read.
const newestRead = 3

// stored is what a repository holds of one cluster.
type stored struct {
	verified, suspect, pinned int
	recent                    []*backup.Manifest // the newest verified ones, the newest first
}

// newest returns the newest verified snapshot, or nil.
func (s *stored) newest() *backup.Manifest {
	if len(s.recent) == 0 {
		return nil
	}
	return s.recent[0]
}

// repositories returns the names of those that the chosen clusters use, or of
// all where no cluster was chosen.
func (c *checker) repositories() []string {
	var out []string
	for name := range c.conf.Repositories {
		used := slices.ContainsFunc(c.clusters, func(cluster config.Cluster) bool { return cluster.Repository == name })
		if used || len(c.options.Clusters) == 0 {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// checkRepository looks at one repository: whether it can do what will be asked
// of it, and what it holds of the clusters.
func (c *checker) checkRepository(ctx context.Context, name string) []Finding {
	repo := c.conf.Repositories[name]
	l := list{section: SectionRepository, subject: name}
	store, err := repo.Open(ctx, c.options.Log)
	if err != nil {
		l.fail(hintOf(err, "correct the repository's url and s3"), "%v", err)
		return l.findings
	}
	checkEncryption(&l, &repo)
	checkPlace(&l, &repo)
	if !checkMarker(ctx, &l, &repo, store) {
		return l.findings
	}
	probe(ctx, &l, &repo, store)
	out := l.findings
	for i := range c.clusters {
		if c.clusters[i].Repository != name {
			continue
		}
		held := list{section: SectionRepository, subject: name + " " + c.clusters[i].Name}
		c.checkHeld(ctx, &held, i, store)
		checkIdentities(ctx, &held, &c.clusters[i], &repo, store, c.stored[i].newest())
		out = append(out, held.findings...)
	}
	return out
}

// checkEncryption warns where whoever reads the bucket reads every secret that
// etcd holds.
func checkEncryption(l *list, r *config.Repository) {
	options, err := r.Codec()
	switch {
	case err != nil:
		l.fail("correct the repository's recipients", "%v", err)
	case options.Recipients.Len() > 0:
		l.ok("new snapshots are encrypted to %d recipients", options.Recipients.Len())
	case placeOf(r).IsFolder():
	case placeOf(r).EncryptedByKey(r.Options):
		l.ok("new snapshots are encrypted by the service, with a key that the service is given or holds")
	default:
		l.warn("make a key with age-keygen, keep it elsewhere, and set the repository's recipients",
			"new snapshots are not encrypted: whoever can read the bucket reads everything that is in etcd, the secrets of Kubernetes too")
	}
}

// placeOf returns where a repository is whose store could be opened.
func placeOf(r *config.Repository) location.Location {
	loc, _ := location.Parse(r.URL) // opening has reported what is wrong with it
	return loc
}

// checkPlace warns of a folder that is lost together with this host.
func checkPlace(l *list, r *config.Repository) {
	loc := placeOf(r)
	if !loc.IsFolder() {
		return
	}
	fs, err := fileSystemOf(existing(loc.Path))
	switch {
	case err != nil:
		l.fail("correct the repository's url", "%v", err)
	case fs.kind == inMemory:
		l.fail("put the repository on a disk, best one of another machine", "the folder %s is in memory (%s): the next reboot takes all backups with it", loc.Path, fs.name)
	case fs.kind != onNetwork:
		l.warn("copy the folder to another machine, or use a bucket or a network file system",
			"the folder %s is on a disk of this host: whatever takes the host takes the backups with it", loc.Path)
	}
}

// checkMarker looks whether the place is a repository, or can become one, and
// reports whether to go on.
func checkMarker(ctx context.Context, l *list, r *config.Repository, s storage.Store) bool {
	m, err := storage.OpenRepository(ctx, s)
	if err == nil {
		l.ok("it is repository %s, of %s", m.ID, m.CreatedAt.Format("2006-01-02"))
		return true
	}
	if errors.Is(err, fs.ErrNotExist) {
		others, listErr := foreign(ctx, s)
		switch {
		case errors.Is(listErr, fs.ErrNotExist) && !placeOf(r).IsFolder():
			err = listErr // not the marker: the bucket is missing
		case others:
			l.warn("choose another prefix or folder unless this is meant", "the place holds objects and is no repository of backupd: the first backup will make it one")
			return true
		default: // that it cannot be listed the probe tells
			l.ok("there is no repository yet: the first backup makes it")
			return true
		}
	}
	l.fail(hintOf(err, "correct the url, the credentials or the policy of the bucket"), "%v", err)
	return false
}

// checkHeld looks at what is stored of a cluster.
func (c *checker) checkHeld(ctx context.Context, l *list, i int, s storage.Store) {
	conf, held := &c.clusters[i], &c.stored[i]
	var recent []snapshot.Entry // the oldest first
	var last, damaged snapshot.Entry
	for item, err := range snapshot.Catalog(ctx, s, conf.Name) {
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				l.fail(hintOf(err, "let the credentials list the bucket below this prefix"), "%v", err)
				return
			}
			break // a folder that the first backup makes
		}
		if item.Pinned {
			held.pinned++
		}
		switch {
		case !item.Manifest:
			continue
		case item.DataMissing() || item.Clash:
			damaged = item.Entry
		case item.Suspect:
			held.suspect++
		default:
			held.verified++
			recent = append(recent, item.Entry)
			recent = recent[max(0, len(recent)-newestRead):]
		}
		last = item.Entry
	}
	for _, e := range slices.Backward(recent) {
		m, err := snapshot.Open(ctx, s, e)
		if err != nil {
			l.fail(hintOf(err, "backupd verify says more"), "snapshot %s: %v", e.ID, err)
			continue
		}
		held.recent = append(held.recent, m)
	}
	if damaged.ID != "" {
		l.fail("backupd verify says more; remove it with 'backupd rm' once another is there", "snapshot %s is not whole: its data is missing, or another manifest names it too", damaged.ID)
	}
	if last.Suspect {
		l.warn("find out which member is right (etcdctl endpoint hashkv --cluster); nothing verified is removed meanwhile", "the newest snapshot %s is suspect", last.ID)
	}
	c.checkAge(l, conf, held)
}

// checkAge compares the newest verified snapshot with the schedule.
func (c *checker) checkAge(l *list, conf *config.Cluster, held *stored) {
	count := fmt.Sprintf("%d verified, %d suspect, %d pinned", held.verified, held.suspect, held.pinned)
	newest := held.newest()
	if newest == nil {
		l.warn("start the daemon, or 'backupd backup --once'", "there is no verified snapshot (%s)", count)
		return
	}
	age := c.now.Sub(newest.StartedAt)
	line, err := conf.Snapshot.Line()
	if err != nil {
		return // told by checkPlan
	}
	// Where nothing changes none is taken, until max-age forces one.
	distance := line.Longest(c.now)
	limit := distance + max(distance, conf.Snapshot.MaxAge)
	if age > limit {
		l.warn("look at 'backupd status' and the daemon's log: backups have stopped", "the newest verified snapshot %s is %s old, and should be %s at most (%s)", newest.ID, span(age), span(limit), count)
		return
	}
	l.ok("the newest verified snapshot is %s old (%s)", span(max(0, age)), count)
}

// checkIdentities proves that the keys the daemon verifies with decrypt what is
// stored, and what will be.
func checkIdentities(ctx context.Context, l *list, conf *config.Cluster, repo *config.Repository, s storage.Store, newest *backup.Manifest) {
	if len(conf.Verify.IdentityFiles) == 0 {
		if newest != nil && newest.Encoding.Encryption != "" || len(repo.Recipients)+len(repo.RecipientsFiles) > 0 {
			l.add(OK, "try it where the secret key is: backupd verify --identity FILE", "whether snapshots can be decrypted is not known here: there are no verify.identity-files, as it should be on most hosts")
		}
		return
	}
	ids, err := codec.ReadIdentities(conf.Verify.IdentityFiles)
	if err != nil {
		return // told by checkFiles
	}
	const hint = "add the secret key of one of the repository's recipients to verify.identity-files"
	if options, err := repo.Codec(); err == nil && options.Recipients.Len() > 0 {
		if err := roundTrip(options, ids); err != nil {
			l.fail(hint, "verify.identity-files do not decrypt what is encrypted to the repository's recipients: %v", err)
		} else {
			l.ok("verify.identity-files decrypt what is encrypted to the repository's recipients")
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
	want := codec.Want{Plain: backup.Blob{Bytes: int64(len(plain)), SHA256: sha256.Sum256(plain)}, Stored: sum}
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
	r, err := snapshot.OpenData(ctx, s, m, ids, nil)
	if err != nil {
		return err
	}
	_, err = io.ReadFull(r, make([]byte, 4096))
	return errors.Join(err, r.Close())
}
