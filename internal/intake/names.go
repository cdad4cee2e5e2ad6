// Package intake brings snapshots into a repository that other programs have taken as files: of
// etcdctl, k3s, RKE2, Talos, etcd-backup-restore, and copies of databases. It finds out when each
// was taken, unpacks it into the spool, inspects it as any other, and stores it where it belongs in
// the history of its cluster, or refuses it.
package intake

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// Taken is when a snapshot was taken, and by what that is known.
type Taken struct {
	At   time.Time
	From backup.TimeFrom
}

// firstYear is the year of the first etcd with snapshots of this form.
const firstYear = 2016

var (
	// ofBackupRestore is a snapshot of etcd-backup-restore: kind, first and last revision, Unix time,
	// compression, and .final where the cluster was about to be deleted.
	ofBackupRestore = regexp.MustCompile(`^(Full|Incr)-(\d{8,19})-(\d{8,19})-(\d{9,11})(\.gz|\.zlib|\.Z)?(\.final)?$`)
	// ofK3s is a snapshot of k3s or RKE2, before the Unix time: the name of the node follows.
	ofK3s = regexp.MustCompile(`^(etcd-snapshot|on-demand)-`)
	// unixTime stands at the end of the names of k3s, RKE2 and many scripts, before extensions.
	unixTime = regexp.MustCompile(`(?:^|[-_.])(1[4-9]\d{8})(?:\.[A-Za-z][A-Za-z0-9]*)*$`)
	// zoned is a date with a time and a zone: in the ids of backupd, of RKE, and in many scripts.
	zoned = regexp.MustCompile(
		`(?:^|\D)(20\d\d)(-?)(\d\d)-?(\d\d)T(\d\d)([-:_.]?)(\d\d)[-:_.]?(\d\d)(Z|[+-]\d\d:?\d\d)(?:[^0-9:]|$)`)
	// dated is a date, and perhaps a time, without a zone.
	dated = regexp.MustCompile(
		`(?:^|\D)(20\d\d)([-_.]?)(0[1-9]|1[0-2])[-_.]?(0[1-9]|[12]\d|3[01])` +
			`(?:[-_T. ]{1,2}([01]\d|2[0-3])[-_:.h]?([0-5]\d)(?:[-_:.m]?([0-5]\d))?)?(?:\D|$)`)
)

// timesIn returns the times that the name of a file tells for certain, each once.
func timesIn(name string) []time.Time {
	var out []time.Time
	add := func(t time.Time) {
		if !slices.ContainsFunc(out, t.Equal) {
			out = append(out, t)
		}
	}
	if m := ofBackupRestore.FindStringSubmatch(name); m != nil {
		return []time.Time{fromUnix(m[4])} // its revisions may look like times
	}
	if m := unixTime.FindStringSubmatch(name); m != nil {
		add(fromUnix(m[1]))
	}
	for _, m := range zoned.FindAllStringSubmatch(name, -1) {
		text := fmt.Sprintf("%s-%s-%sT%s:%s:%s%s", m[1], m[3], m[4], m[5], m[7], m[8], strings.Replace(m[9], ":", "", 1))
		if t, err := time.Parse("2006-01-02T15:04:05Z0700", text); err == nil && isZone(t) {
			add(t.UTC())
		}
	}
	return out
}

// isZone reports whether there is a place with the zone of a time. Four digits after a minus may also
// be a number.
func isZone(t time.Time) bool {
	_, seconds := t.Zone()
	east := time.Duration(seconds) * time.Second
	return east >= -westmost && east <= eastmost && east%(15*time.Minute) == 0
}

func fromUnix(digits string) time.Time {
	n, _ := strconv.ParseInt(digits, 10, 64) // the pattern matched at most 11 digits
	return time.Unix(n, 0).UTC()
}

// span is when a file can have been taken by a date in its name that has no zone.
type span struct {
	from, to time.Time
	// utc is the time if the zone is UTC.
	utc time.Time
}

func (s *span) has(t time.Time) bool { return !t.Before(s.from) && !t.After(s.to) }

// The zones of the world, and how long a snapshot may have taken to be saved.
const (
	eastmost = 14 * time.Hour
	westmost = 12 * time.Hour
	saving   = time.Hour
)

// spanIn returns when a file can have been taken by the date in its name, or nil if that has none.
func spanIn(name string) *span {
	m := dated.FindStringSubmatch(name)
	if m == nil {
		return nil
	}
	n := make([]int, len(m))
	for i := range m {
		n[i], _ = strconv.Atoi(m[i]) // 0 for what is not there
	}
	at := time.Date(n[1], time.Month(n[3]), n[4], n[5], n[6], n[7], 0, time.UTC)
	last := at
	switch {
	case m[5] == "":
		last = at.AddDate(0, 0, 1)
	case m[7] == "":
		last = at.Add(time.Minute)
	}
	return &span{from: at.Add(-eastmost), to: last.Add(westmost + saving), utc: at}
}

// TimeError says why nobody knows when a file was taken.
type TimeError struct {
	Reason string
	// Times are those that may be right.
	Times []time.Time
	// Cluster is the name under which it contradicts others; empty if it does not.
	Cluster string
}

func (e *TimeError) Error() string { return "refused: " + e.Reason }

// Unwrap makes it a refusal.
func (e *TimeError) Unwrap() error { return &backup.RefusedError{Reason: e.Reason} }

// TakenAt returns when a file was taken: by its name where that tells it for certain, else by the
// time at which it was modified, if the name does not contradict that. The error is a [*TimeError]
// where that is not known.
func TakenAt(path string, modified, now time.Time) (Taken, error) {
	name := filepath.Base(path)
	if m := ofBackupRestore.FindStringSubmatch(name); m != nil && m[1] == "Incr" {
		return Taken{}, &backup.RefusedError{Reason: "it holds the changes since another snapshot of " +
			"etcd-backup-restore, and no database: the full ones, Full-..., can be imported"}
	}
	taken := Taken{modified.UTC().Truncate(time.Second), backup.TimeFromFile}
	switch times := timesIn(name); len(times) {
	case 0:
		if s := spanIn(name); s != nil && !s.has(taken.At) {
			return Taken{}, &TimeError{Times: []time.Time{s.utc, taken.At}, Reason: fmt.Sprintf("its name has the date %s, "+
				"and it was modified at %s: it may be a copy without its time", s.utc.Format("2006-01-02 15:04:05"),
				spell(taken.At))}
		}
	case 1:
		taken = Taken{times[0], backup.TimeFromName}
		s := spanIn(name)
		// The names of nodes and the revisions of etcd-backup-restore may look like dates.
		if s != nil && !ofK3s.MatchString(name) && !ofBackupRestore.MatchString(name) && !s.has(taken.At) {
			return Taken{}, &TimeError{Reason: "its name tells more than one time", Times: []time.Time{taken.At, s.utc}}
		}
	default:
		return Taken{}, &TimeError{Reason: "its name tells more than one time", Times: times}
	}
	return taken, Plausible(taken.At, now)
}

// Plausible refuses times at which no snapshot was taken.
func Plausible(at, now time.Time) error {
	switch {
	case at.After(now.Add(backup.Skew)):
		return &TimeError{Reason: fmt.Sprintf("by its time, %s, it is from the future: a clock is or was wrong", spell(at))}
	case at.UTC().Year() < firstYear:
		return &TimeError{Reason: fmt.Sprintf("by its time, %s, it is older than etcd's snapshots", spell(at))}
	}
	return nil
}

func spell(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// modifiedAt returns when a file was modified. It refuses what is no file: a pipe may block.
func modifiedAt(path string) (time.Time, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return time.Time{}, err
	case info.IsDir():
		return time.Time{}, errors.New("it is a folder: name the files in it")
	case !info.Mode().IsRegular():
		return time.Time{}, errors.New("it is not a regular file")
	}
	return info.ModTime(), nil
}
