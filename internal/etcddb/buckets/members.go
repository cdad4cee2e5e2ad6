package buckets

import (
	"encoding/json"
	"fmt"
	"strconv"

	"go.etcd.io/etcd/client/pkg/v3/types"
)

// Member is one of the members that a database records. It has the JSON of etcd's own
// type, whose package brings a whole server with it
// (etcd server/etcdserver/api/membership/member.go).
type Member struct {
	ID         uint64   `json:"id"`
	Name       string   `json:"name"`
	PeerURLs   []string `json:"peerURLs"`
	ClientURLs []string `json:"clientURLs"`
	IsLearner  bool     `json:"isLearner"`
}

// readMember decodes a member. The key is the id in hexadecimal. A server panics over a
// peer without a URL.
func (c *Contents) readMember(key, value []byte) error {
	id, err := memberID(key)
	if err != nil {
		return err
	}
	m := Member{ID: id}
	if err := json.Unmarshal(value, &m); err != nil {
		return fmt.Errorf("member %x: decode: %w", id, err)
	}
	if m.ID != id {
		return fmt.Errorf("member %x: calls itself %x", id, m.ID)
	}
	if _, err := types.NewURLs(m.PeerURLs); err != nil {
		return fmt.Errorf("member %x: peer URLs: %w", id, err)
	}
	c.Members = append(c.Members, m)
	return nil
}

func (c *Contents) readRemovedMember(key []byte) error {
	id, err := memberID(key)
	c.RemovedMembers = append(c.RemovedMembers, id)
	return err
}

func memberID(key []byte) (uint64, error) {
	id, err := strconv.ParseUint(string(clip(key)), 16, 64)
	if err != nil {
		return 0, fmt.Errorf("member key %q is not a number", clip(key))
	}
	return id, nil
}
