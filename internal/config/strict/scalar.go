package strict

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"strconv"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/etcd-backupd/backupd/internal/secret"
)

var (
	durationType = reflect.TypeFor[time.Duration]()
	secretType   = reflect.TypeFor[secret.Text]()
)

// isText reports whether a value of type t may be written with quotes.
func isText(t reflect.Type) bool { return t.Kind() == reflect.String || t == durationType }

// setScalar parses text into v by v's type. An int64 is a size in bytes.
// Errors do not quote the text.
func setScalar(v reflect.Value, text string) error {
	switch {
	case v.Type() == durationType:
		d, err := ParseDuration(text)
		v.SetInt(int64(d))
		return err
	case v.Kind() == reflect.String:
		v.SetString(text)
		return nil
	case v.Kind() == reflect.Bool:
		if text != "true" && text != "false" {
			return errors.New("want true or false")
		}
		v.SetBool(text == "true")
		return nil
	case v.Kind() == reflect.Int64:
		n, err := parseSize(text)
		v.SetInt(n)
		return err
	case v.Kind() == reflect.Int:
		n, err := parseInt(text)
		v.SetInt(int64(n))
		return err
	case v.Kind() == reflect.Float64:
		f, err := parseFraction(text)
		v.SetFloat(f)
		return err
	}
	panic("strict: internal error: no scalar: " + v.Type().String())
}

var (
	intPattern      = regexp.MustCompile(`^(?:0|[1-9][0-9]*)$`)
	negativePattern = regexp.MustCompile(`^-[0-9.]`)
	zeroPattern     = regexp.MustCompile(`^0[0-9]+$`)
	sizePattern     = regexp.MustCompile(`^[0-9]+(?:\.[0-9]+)? ?(?:[kKMGTPE]i?)?B$`)
	weekDayPattern  = regexp.MustCompile(`^(?:([0-9]+)w)?(?:([0-9]+)d)?(.*)$`)
	fractionPattern = regexp.MustCompile(`^[0-9]+(?:\.[0-9]+)?$`)
)

// No number in the file may be negative. 010 means 8 in YAML 1.1 and 10 in YAML
// 1.2, so it is not allowed.
var (
	errNegative = errors.New("must not be negative")
	errOctal    = errors.New("a number must not begin with a zero")
)

func parseInt(text string) (int, error) {
	switch {
	case negativePattern.MatchString(text):
		return 0, errNegative
	case zeroPattern.MatchString(text):
		return 0, errOctal
	case !intPattern.MatchString(text):
		return 0, errors.New("want a whole number")
	}
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("the number is too large: want at most %d", math.MaxInt32)
	}
	return int(n), nil
}

// parseSize parses a number of bytes: 1048576, 1MiB, 1.5 GB.
func parseSize(text string) (int64, error) {
	switch {
	case negativePattern.MatchString(text):
		return 0, errNegative
	case zeroPattern.MatchString(text):
		return 0, errOctal
	case intPattern.MatchString(text):
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return 0, errors.New("the size is too large")
		}
		return n, nil
	case !sizePattern.MatchString(text):
		return 0, errors.New("want a size, such as 500MiB or 10GiB")
	}
	n, err := humanize.ParseBytes(text)
	if err != nil || n > math.MaxInt64 {
		return 0, errors.New("the size is too large")
	}
	return int64(n), nil
}

// ParseDuration extends time.ParseDuration by weeks and days in front: 90s, 1h30m,
// 7d, 1w2d12h.
func ParseDuration(text string) (time.Duration, error) {
	bad := errors.New("want a duration with its unit, such as 90s, 1h30m or 7d")
	if text == "0" {
		return 0, nil
	}
	if negativePattern.MatchString(text) {
		return 0, errNegative
	}
	m := weekDayPattern.FindStringSubmatch(text)
	if text == "" || m == nil || m[3] != "" && (m[3][0] == '-' || m[3][0] == '+') {
		return 0, bad
	}
	var total time.Duration
	for i, unit := range []time.Duration{7 * 24 * time.Hour, 24 * time.Hour} {
		if m[i+1] == "" {
			continue
		}
		n, err := strconv.ParseInt(m[i+1], 10, 64)
		if err != nil || n > int64((math.MaxInt64-total)/unit) {
			return 0, errors.New("the duration is too long: want less than 292 years")
		}
		total += time.Duration(n) * unit
	}
	if m[3] == "" {
		return total, nil
	}
	rest, err := time.ParseDuration(m[3])
	if err != nil {
		return 0, bad
	}
	if rest > math.MaxInt64-total {
		return 0, errors.New("the duration is too long: want less than 292 years")
	}
	return total + rest, nil
}

func parseFraction(text string) (float64, error) {
	if negativePattern.MatchString(text) {
		return 0, errNegative
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || !fractionPattern.MatchString(text) || f > 1 {
		return 0, errors.New("want a number from 0 to 1")
	}
	return f, nil
}
