package restore

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// PlanFormat is the format in which a plan is written.
const PlanFormat = "backupd/plan/v1"

// MaxPlanBytes is the largest plan that is written or read.
const MaxPlanBytes = 1 << 20

// planFile is a plan as it is written.
type planFile struct {
	Format string `json:"format"`
	*Plan
}

// Marshal returns p as indented JSON.
func (p *Plan) Marshal() ([]byte, error) {
	raw, err := json.MarshalIndent(planFile{PlanFormat, p}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode plan: %w", err)
	}
	if raw = append(raw, '\n'); len(raw) > MaxPlanBytes {
		return nil, fmt.Errorf("encode plan: %d bytes are more than %d", len(raw), MaxPlanBytes)
	}
	return raw, nil
}

// ParsePlan reads a plan that [Plan.Marshal] has written. It refuses a plan that
// this version does not fully understand, and one that contradicts itself: a
// restore does exactly what its plan says.
func ParsePlan(raw []byte) (*Plan, error) {
	if len(raw) > MaxPlanBytes {
		return nil, backup.Corruptf("plan of %d bytes: more than %d", len(raw), MaxPlanBytes)
	}
	if err := checkPlanFormat(raw); err != nil {
		return nil, err
	}
	file := planFile{Plan: &Plan{}}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&file); err != nil {
		return nil, backup.Corruptf("decode plan: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, backup.Corruptf("decode plan: more data follows it")
	}
	if err := file.validate(); err != nil {
		return nil, backup.Corruptf("plan: %w", err)
	}
	return file.Plan, nil
}

// checkPlanFormat is called first, so that a plan of a newer version is not
// reported as damaged.
func checkPlanFormat(raw []byte) error {
	var head struct {
		Format string `json:"format"`
	}
	// This decodes the first document only; ParsePlan refuses anything after it.
	if err := json.NewDecoder(bytes.NewReader(raw)).Decode(&head); err != nil {
		return backup.Corruptf("decode plan: %w", err)
	}
	switch head.Format {
	case PlanFormat:
		return nil
	case "":
		return backup.Corruptf("decode plan: no format")
	}
	err := fmt.Errorf("plan format %q is not known to this version (it reads %q)", head.Format, PlanFormat)
	return backup.WithHint(err, "use a newer backupd")
}

// validate checks that p could have come from [NewPlan].
func (p *Plan) validate() error {
	switch {
	case p.Source.Name == "":
		return errors.New("the source has no name")
	case p.Source.Bytes <= 0 || p.Source.Revision < 0:
		return fmt.Errorf("the source has %d bytes and revision %d", p.Source.Bytes, p.Source.Revision)
	case p.Token == "" || p.Request.Token != "" && p.Request.Token != p.Token:
		return fmt.Errorf("token %q, requested is %q", p.Token, p.Request.Token)
	}
	if err := p.checkRevision(); err != nil {
		return err
	}
	members, err := ParseMembers(p.InitialCluster())
	if err != nil {
		return err
	}
	if err := p.checkToken(); err != nil {
		return err
	}
	id, err := identify(members, p.Token)
	if err != nil {
		return err
	}
	if id != p.ClusterID || !reflect.DeepEqual(members, p.Members) {
		return fmt.Errorf("cluster %s of %s does not follow from its token and URLs", p.ClusterID, p.InitialCluster())
	}
	return nil
}
