package codec

import "encoding/binary"

// Compressed bytes are frames that do not depend on each other, and then a seek table in a
// skippable frame, as zstd's seekable format has it (contrib/seekable_format of zstd):
//
//	magic, bytes that follow | entries: stored bytes, plain bytes, checksum | entries, flags, magic
const (
	// frameBytes is how many plain bytes a frame holds, the last one fewer, and largeFrame how many
	// where the first frames shrink to less than a largeRatio: docs/performance.md tells why.
	frameBytes = 768 << 10
	largeFrame = 2 << 20
	largeRatio = 6
	// firstFrames decide.
	firstFrames = 4
	// maxFrame bounds the memory that a stored object can make a decoder use.
	maxFrame = 4 << 20

	tableMagic       = 0x184D2A5E
	tableFooterMagic = 0x8F92EAB1
	tableHeaderBytes = 8
	tableEntryBytes  = 12
	tableFooterBytes = 9
	tableChecksums   = 1 << 7 // the flag that entries have a checksum
)

// entry describes one frame.
type entry struct {
	stored, plain uint32
	sum           uint32 // the lower half of the XXH64 of the plain bytes, with which the frame ends
}

// table describes all frames, in their order.
type table []entry

// entryOf describes a frame by its own bytes.
func entryOf(frame []byte, plain int) entry {
	return entry{uint32(len(frame)), uint32(plain), binary.LittleEndian.Uint32(frame[len(frame)-checksumBytes:])}
}

// size is how many bytes the table takes.
func (t table) size() int { return tableHeaderBytes + len(t)*tableEntryBytes + tableFooterBytes }

// marshal returns the table as it is stored.
func (t table) marshal() []byte {
	order := binary.LittleEndian
	out := make([]byte, 0, t.size())
	out = order.AppendUint32(out, tableMagic)
	out = order.AppendUint32(out, uint32(t.size()-tableHeaderBytes))
	for _, e := range t {
		out = order.AppendUint32(out, e.stored)
		out = order.AppendUint32(out, e.plain)
		out = order.AppendUint32(out, e.sum)
	}
	out = order.AppendUint32(out, uint32(len(t)))
	out = append(out, tableChecksums)
	return order.AppendUint32(out, tableFooterMagic)
}
