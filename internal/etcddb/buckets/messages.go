package buckets

import (
	"encoding/binary"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/lease/leasepb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// MemberAlarm is an alarm of a member.
type MemberAlarm struct {
	Member uint64
	Kind   int32 // as in etcdserverpb.AlarmType
}

// maxLeaseTTL is the longest life that etcd grants, in seconds. The time at which a
// longer one ends does not fit in a number: a server would end it at once, and delete
// its keys (etcd server/lease/lessor.go).
const maxLeaseTTL = 9_000_000_000

// readAlarm decodes an alarm. It is the key; the value is empty.
func (c *Contents) readAlarm(key []byte) error {
	m := &etcdserverpb.AlarmMember{}
	if err := decode(key, m); err != nil {
		return fmt.Errorf("alarm %x: decode: %w", clip(key), err)
	}
	c.Alarms = append(c.Alarms, MemberAlarm{m.MemberID, int32(m.Alarm)})
	return nil
}

func (c *Contents) readLease(key, value []byte) error {
	if len(key) != 8 {
		return fmt.Errorf("lease key %x has %d bytes instead of 8", clip(key), len(key))
	}
	id, m := binary.BigEndian.Uint64(key), &leasepb.Lease{}
	if err := decode(value, m); err != nil {
		return fmt.Errorf("lease %x: decode: %w", id, err)
	}
	switch {
	case uint64(m.ID) != id:
		return fmt.Errorf("lease %x: calls itself %x", id, uint64(m.ID))
	case m.TTL < 1 || m.TTL > maxLeaseTTL || m.RemainingTTL > maxLeaseTTL:
		return fmt.Errorf("lease %x: lives for %d s, of which %d are left", id, m.TTL, m.RemainingTTL)
	}
	c.Leases++
	return nil
}

// decode accepts what all servers accept. Since 3.7 they skip a known field of another
// wire type as if they did not know it; the ones before refuse it.
func decode(b []byte, m proto.Message) error {
	if err := proto.Unmarshal(b, m); err != nil {
		return errors.New("it is not a " + string(m.ProtoReflect().Descriptor().Name()))
	}
	return checkUnknown(m.ProtoReflect())
}

func checkUnknown(m protoreflect.Message) error {
	fields := m.Descriptor().Fields()
	for b := m.GetUnknown(); len(b) > 0; {
		n, _, size := protowire.ConsumeField(b)
		if size < 0 {
			return protowire.ParseError(size)
		}
		if f := fields.ByNumber(n); f != nil {
			return fmt.Errorf("field %s has another type", f.Name())
		}
		b = b[size:]
	}
	var err error
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if f.Kind() != protoreflect.MessageKind {
			return true
		}
		if !f.IsList() {
			err = checkUnknown(v.Message())
			return err == nil
		}
		for i := range v.List().Len() {
			if err = checkUnknown(v.List().Get(i).Message()); err != nil {
				return false
			}
		}
		return true
	})
	return err
}
