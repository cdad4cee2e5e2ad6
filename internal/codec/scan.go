package codec

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/klauspost/compress/zstd"
)

// Of the form of a zstd frame (RFC 8878, section 3.1.1): a header, blocks, a checksum.
const (
	blockHeaderBytes = 3
	checksumBytes    = 4

	blockRLE      = 1
	blockReserved = 3
)

// scanner cuts compressed bytes into frames, without decoding them. What it reads is not trusted:
// a frame has a bound before it is read.
type scanner struct {
	r     *bufio.Reader
	table table // of the frames until now
	plain int64 // bytes in them
	ended bool  // the seek table was read
}

func newScanner(r io.Reader) *scanner { return &scanner{r: bufio.NewReaderSize(r, 64<<10)} }

// next reads the next frame into buf, whose bytes are dropped, and returns it with the number of
// its plain bytes. It returns io.EOF after a seek table that tells of exactly the frames before it.
func (s *scanner) next(buf []byte) (frame []byte, plain int, err error) {
	head, err := s.r.Peek(zstd.HeaderMaxSize)
	switch {
	case err != nil && err != io.EOF:
		return nil, 0, err
	case len(head) == 0 && s.ended:
		return nil, 0, io.EOF
	case len(head) == 0:
		return nil, 0, errors.New("the seek table is missing")
	case s.ended:
		return nil, 0, errors.New("bytes follow the seek table")
	}
	var h zstd.Header
	if err := h.Decode(head); err != nil {
		return nil, 0, fmt.Errorf("frame %d: %w", len(s.table), err)
	}
	if h.Skippable {
		if err := s.end(&h); err != nil {
			return nil, 0, err
		}
		return s.next(nil) // nothing may follow
	}
	if frame, err = s.frame(&h, buf[:0]); err != nil {
		return nil, 0, fmt.Errorf("frame %d: %w", len(s.table), err)
	}
	plain = int(h.FrameContentSize)
	s.table = append(s.table, entryOf(frame, plain))
	s.plain += int64(plain)
	return frame, plain, nil
}

// checkHeader refuses a frame that is not of our form.
func checkHeader(h *zstd.Header) error {
	switch {
	case h.Skippable:
		return errors.New("it is none of data")
	case !h.HasFCS || h.FrameContentSize == 0 || h.FrameContentSize > maxFrame:
		return fmt.Errorf("%d plain bytes, want 1 to %d", h.FrameContentSize, maxFrame)
	case !h.HasCheckSum || h.DictionaryID != 0:
		return errors.New("it has no checksum, or needs a dictionary")
	}
	return nil
}

// maxStored bounds the stored bytes of a frame: bytes that cannot be compressed are stored as they
// are, with a few bytes for each 128 KiB.
func maxStored(plain uint64) int { return int(plain + plain/128 + 1<<10) }

// frame appends one frame to buf.
func (s *scanner) frame(h *zstd.Header, buf []byte) ([]byte, error) {
	if err := checkHeader(h); err != nil {
		return nil, err
	}
	most := maxStored(h.FrameContentSize)
	buf, err := s.append(buf, h.HeaderSize, most)
	for last := false; err == nil && !last; {
		if buf, err = s.append(buf, blockHeaderBytes, most); err != nil {
			break
		}
		b := buf[len(buf)-blockHeaderBytes:]
		header := int(b[0]) | int(b[1])<<8 | int(b[2])<<16
		kind, n := header>>1&3, header>>3
		last = header&1 == 1
		switch kind {
		case blockReserved:
			return nil, errors.New("a block is of no kind that there is")
		case blockRLE:
			n = 1
		}
		buf, err = s.append(buf, n, most)
	}
	if err == nil {
		buf, err = s.append(buf, checksumBytes, most)
	}
	return buf, err
}

// append reads n bytes to the end of buf, which then has at most the given number.
func (s *scanner) append(buf []byte, n, most int) ([]byte, error) {
	have := len(buf)
	if have+n > most {
		return nil, fmt.Errorf("more than %d stored bytes", most)
	}
	buf = slices.Grow(buf, n)[:have+n]
	if _, err := io.ReadFull(s.r, buf[have:]); err != nil {
		return nil, unexpected(err)
	}
	return buf, nil
}

// unexpected is an error of io.ReadFull where bytes must follow.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// end reads the seek table and compares it with the frames before it.
func (s *scanner) end(h *zstd.Header) error {
	want := s.table.marshal()
	if size := int64(h.HeaderSize) + int64(h.SkippableSize); size != int64(len(want)) {
		return fmt.Errorf("the seek table has %d bytes, that of the %d frames before it %d",
			size, len(s.table), len(want))
	}
	got := make([]byte, len(want))
	if _, err := io.ReadFull(s.r, got); err != nil {
		return fmt.Errorf("read the seek table: %w", unexpected(err))
	}
	if !bytes.Equal(got, want) {
		return errors.New("the seek table does not tell of the frames before it")
	}
	s.ended = true
	return nil
}
