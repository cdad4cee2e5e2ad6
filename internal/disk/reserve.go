package disk

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"

	"github.com/dustin/go-humanize"
)

// The default reserve. A kubelet evicts pods when a file system has less than 10 or
// 15 % free, and etcd takes 64 MB at once for each segment of its write-ahead log.
const (
	defaultPercent = 15
	defaultBytes   = 2 << 30
)

// Reserve is how much of a file system must stay free for others. The zero value is
// the default: the larger of 15 % and 2 GiB. It can be compared.
type Reserve struct {
	bytes   int64
	percent float64
	given   bool
}

// ReserveOf returns a reserve of so many bytes. With 0 nothing is kept free.
func ReserveOf(bytes int64) Reserve { return Reserve{bytes: bytes, given: true} }

var (
	percentPattern = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?) ?%$`)
	bytesPattern   = regexp.MustCompile(`^[0-9]+(?:\.[0-9]+)? ?(?:[kKMGTPE]i?)?B$|^[0-9]+$`)
)

// ParseReserve parses a size, such as 3GiB, or a part of the file system, such as 20%.
// An empty text is the default.
func ParseReserve(text string) (Reserve, error) {
	if text == "" {
		return Reserve{}, nil
	}
	if m := percentPattern.FindStringSubmatch(text); m != nil {
		percent, err := strconv.ParseFloat(m[1], 64)
		if err != nil || percent >= 100 {
			return Reserve{}, errors.New("want less than 100%")
		}
		return Reserve{percent: percent, given: true}, nil
	}
	if !bytesPattern.MatchString(text) {
		return Reserve{}, errors.New("want a size, such as 3GiB, or a part of the file system, such as 20%")
	}
	n, err := humanize.ParseBytes(text)
	if err != nil || n > math.MaxInt64 {
		return Reserve{}, errors.New("the size is too large")
	}
	return ReserveOf(int64(n)), nil
}

// Of returns the bytes that must stay free on a file system.
func (r Reserve) Of(fs FileSystem) int64 {
	if !r.given {
		return max(defaultBytes, part(fs.Total, defaultPercent))
	}
	return max(r.bytes, part(fs.Total, r.percent))
}

func part(total int64, percent float64) int64 { return int64(float64(total) / 100 * percent) }

// The default reserve of a repository. It is less than a spool's on a large disk: a disk that
// is there for backups alone must not lose a sixth of itself.
const (
	leastForRepository = 256 << 20
	mostForRepository  = 2 << 30
)

// RepositoryReserve is how much of a repository's file system must stay free. It differs from
// a [Reserve] in its default: 15 %, but at least 256 MiB and at most 2 GiB.
type RepositoryReserve struct{ Reserve }

// Of returns the bytes that must stay free on a file system.
func (r RepositoryReserve) Of(fs FileSystem) int64 {
	if !r.given {
		return min(mostForRepository, max(leastForRepository, part(fs.Total, defaultPercent)))
	}
	return r.Reserve.Of(fs)
}

// String returns the reserve as [ParseReserve] reads it.
func (r Reserve) String() string {
	switch {
	case !r.given:
		return ""
	case r.percent > 0:
		return strconv.FormatFloat(r.percent, 'f', -1, 64) + "%"
	}
	return fmt.Sprintf("%dB", r.bytes)
}

// Size returns a number of bytes for people. A negative one is 0.
func Size(bytes int64) string { return humanize.IBytes(uint64(max(0, bytes))) }
