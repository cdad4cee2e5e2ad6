package restore

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/restore/plainyaml"
	"github.com/etcd-backupd/backupd/internal/restore/token"
)

// PlanFormat is the format in which a plan is written.
const PlanFormat = "backupd/plan/v1"

// MaxPlanBytes is the largest plan that is written or read.
const MaxPlanBytes = 1 << 20

// Stored says where the database of a plan is.
type Stored struct {
	Repository string `json:"repository"` // its address, without secrets
	// Settings are what else says where the bucket is, as flags without their dashes.
	Settings     []string          `json:"settings,omitempty"`
	RepositoryID string            `json:"repositoryID"`
	Cluster      string            `json:"cluster"`
	Snapshot     backup.SnapshotID `json:"snapshot"`
	AllowSuspect bool              `json:"allowSuspect,omitempty"` // it is restored although its content is in doubt
	New          bool              `json:"new,omitempty"`          // another restore was begun: this is not that one
	// Encryption is that of the manifest, and Recipients are the public keys: who restores
	// needs the identity of one of them.
	Encryption string   `json:"encryption,omitempty"`
	Recipients []string `json:"recipients,omitempty"`
}

// Place is where a member is.
type Place = members.Place

// PlaceOf returns the place of a member, or an empty one.
func (p *Plan) PlaceOf(member string) Place {
	i := slices.IndexFunc(p.Places, func(at Place) bool { return at.Member == member })
	if i < 0 {
		return Place{}
	}
	return p.Places[i]
}

// planFile is a plan as it is written.
type planFile struct {
	Format string `json:"format"`
	*Plan
}

var errNoSHA256 = errors.New("the source has no sha256")

// Seal completes a plan that is going to be written, and gives it a fresh token that
// carries the digest of all of it: members of different plans can never form one cluster,
// and a plan that was changed by hand is refused.
func (p *Plan) Seal(stored Stored, places []Place, now time.Time) error {
	p.CreatedAt, p.Stored, p.Places = now.UTC().Truncate(time.Second), stored, places
	digest, err := p.digest()
	if err != nil {
		return err
	}
	p.Token, p.Request.Token = token.New(p.tokenOf(), digest).String(), ""
	if p.ClusterID, err = members.Identify(p.Members, p.Token); err != nil {
		return err
	}
	return p.validate()
}

// digest is of everything in p but what follows from the token.
func (p *Plan) digest() (backup.Digest, error) {
	of := *p
	of.Token, of.ClusterID, of.Request.Token = "", 0, ""
	of.Members = slices.Clone(p.Members)
	for i := range of.Members {
		of.Members[i].ID = 0
	}
	raw, err := json.Marshal(of)
	return sha256.Sum256(raw), err
}

const planHeader = "# How one cluster is restored, by: backupd restore --plan FILE --name MEMBER\n" +
	"# Its token seals all of it: a plan that was changed is refused. Make another one: backupd plan\n"

// Marshal returns p as YAML.
func (p *Plan) Marshal() ([]byte, error) {
	raw, err := json.Marshal(planFile{PlanFormat, p})
	if err == nil {
		raw, err = plainyaml.FromJSON(raw)
	}
	if err != nil {
		return nil, fmt.Errorf("encode plan: %w", err)
	}
	if raw = append([]byte(planHeader), raw...); len(raw) > MaxPlanBytes {
		return nil, fmt.Errorf("encode plan: %d bytes are more than %d", len(raw), MaxPlanBytes)
	}
	return raw, nil
}

// ParsePlan reads a plan that [Plan.Marshal] has written. It refuses a plan that this
// version does not fully understand with a [*members.FileError], whose file the caller may
// name, and one that is not as it was sealed with a [*backup.RefusedError]: a restore does
// exactly what its plan says.
func ParsePlan(raw []byte) (*Plan, error) {
	at := members.Position{File: "plan"}
	if len(raw) > MaxPlanBytes {
		return nil, at.Errorf("%d bytes or more: a plan has at most %d", len(raw), MaxPlanBytes)
	}
	file := planFile{Plan: &Plan{}}
	doc, err := plainyaml.Parse(raw)
	if err == nil {
		if format := doc.Text("format"); format != PlanFormat {
			err := at.Errorf("plan format %q is not known to this version (it reads %q)", format, PlanFormat)
			return nil, backup.WithHint(err, "is it a plan? 'backupd plan' makes one; one of a newer backupd needs that")
		}
		err = doc.Decode(&file)
	}
	var bad *plainyaml.Error
	if errors.As(err, &bad) {
		at.Line = bad.Line
		return nil, at.Errorf("%s", bad.Message)
	}
	if err != nil {
		return nil, at.Errorf("%v", err)
	}
	if err := file.validate(); err != nil {
		return nil, backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
			"the plan is not as it was made: %v", err)}, "make another one: backupd plan")
	}
	return file.Plan, nil
}

// validate checks that p could have come from [Plan.Seal].
func (p *Plan) validate() error {
	switch {
	case p.Source.Name == "":
		return errors.New("the source has no name")
	case p.Source.Bytes <= 0 || p.Source.Revision < 0:
		return fmt.Errorf("the source has %d bytes and revision %d", p.Source.Bytes, p.Source.Revision)
	case p.Request.Token != "":
		return errors.New("it requests a token")
	}
	if err := p.checkRevision(); err != nil {
		return err
	}
	parsed, err := members.Parse(p.InitialCluster())
	if err != nil {
		return err
	}
	if err := p.checkToken(); err != nil {
		return err
	}
	id, err := members.Identify(parsed, p.Token)
	if err != nil {
		return err
	}
	if id != p.ClusterID || !reflect.DeepEqual(parsed, p.Members) {
		return fmt.Errorf("cluster %s of %s does not follow from its token and URLs", p.ClusterID, p.InitialCluster())
	}
	digest, err := p.digest()
	if err != nil {
		return err
	}
	if t, _ := token.Parse(p.Token); !t.IsOfPlan(digest) {
		return errors.New("something in it was changed, for its token seals other content")
	}
	return nil
}
