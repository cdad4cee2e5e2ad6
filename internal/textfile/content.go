package textfile

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// The file is in the text format of Prometheus. Three kinds of comments are for us: the first
// line names the format, one line for each cluster says where the metrics are from, and the
// last line has the checksum of all above.
const (
	format   = "# backupd/metrics/v1"
	checksum = "# sha256:"
	// prefix begins the names of all metrics that are ours.
	prefix = "backupd_"
)

// note says where the metrics of a cluster are from.
type note struct {
	Repository string `json:"repository"`
	Cluster    string `json:"cluster"`
	// Address is the SHA-256 of what leads to the repository: others may read the file.
	Address string `json:"address"`
	// Newest is the newest verified snapshot, if one is known.
	Newest backup.SnapshotID `json:"newest,omitempty"`
}

// content is what a file says. The zero value says nothing.
type content struct {
	families map[string]*dto.MetricFamily
	notes    []note
}

// note returns the note of a cluster, or nil.
func (c *content) note(of note) *note {
	i := slices.IndexFunc(c.notes, func(n note) bool {
		return n.Repository == of.Repository && n.Cluster == of.Cluster
	})
	if i < 0 {
		return nil
	}
	return &c.notes[i]
}

func (c *content) encode() ([]byte, error) {
	var b bytes.Buffer
	fmt.Fprintln(&b, format)
	for _, n := range c.notes {
		raw, err := json.Marshal(n)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "# %s\n", raw)
	}
	for _, name := range slices.Sorted(maps.Keys(c.families)) {
		f := c.families[name]
		slices.SortFunc(f.Metric, func(x, y *dto.Metric) int { return strings.Compare(identity(x), identity(y)) })
		if _, err := expfmt.MetricFamilyToText(&b, f); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	fmt.Fprintf(&b, "%s%s\n", checksum, sum(b.Bytes()))
	return b.Bytes(), nil
}

// decode reads a file. It refuses one that is not ours, or is not what was written.
func decode(raw []byte) (*content, error) {
	head, _, _ := bytes.Cut(raw, []byte("\n"))
	switch {
	case !strings.HasPrefix(string(head), "# backupd/metrics/"):
		return nil, errors.New("backupd did not write what is there")
	case string(head) != format:
		return nil, fmt.Errorf("it has the format %s, of another version of backupd: want %s", head[2:], format[2:])
	}
	body, end := raw, bytes.LastIndex(raw, []byte("\n"+checksum))
	if end >= 0 {
		body = raw[:end+1]
	}
	if end < 0 || string(raw[end+1:]) != checksum+sum(body)+"\n" {
		return nil, errors.New("it is damaged, or somebody has changed it")
	}
	c := &content{}
	for line := range strings.Lines(string(body)) {
		if text, ok := strings.CutPrefix(line, "# {"); ok {
			var n note
			if err := json.Unmarshal([]byte("{"+text), &n); err != nil {
				return nil, fmt.Errorf("it is damaged: %w", err)
			}
			c.notes = append(c.notes, n)
		}
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	var err error
	if c.families, err = parser.TextToMetricFamilies(bytes.NewReader(body)); err != nil {
		return nil, fmt.Errorf("it is damaged: %w", err)
	}
	maps.DeleteFunc(c.families, func(name string, _ *dto.MetricFamily) bool { return !strings.HasPrefix(name, prefix) })
	return c, nil
}

func sum(raw []byte) string {
	h := sha256.Sum256(raw)
	return hex.EncodeToString(h[:])
}

// identity tells a metric from the others of its family.
func identity(m *dto.Metric) string {
	var pairs []string
	for _, l := range m.GetLabel() {
		pairs = append(pairs, l.GetName()+"\x00"+l.GetValue())
	}
	slices.Sort(pairs)
	return strings.Join(pairs, "\x01")
}

// value returns a label of a metric, and whether there is one.
func value(m *dto.Metric, label string) (string, bool) {
	for _, l := range m.GetLabel() {
		if l.GetName() == label {
			return l.GetValue(), true
		}
	}
	return "", false
}
