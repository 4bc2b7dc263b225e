package containerlog

import (
	"errors"
	"io"
)

// A verdict is what a format says about the bytes it was shown.
type verdict int

const (
	good verdict = iota // a record was decoded
	bad                 // n bytes are none
	skip                // a record of no interest
	more                // the record at the start is not complete
)

// A format decodes one kind of log file.
type format interface {
	// decode decodes the record at the start of b into e, and returns how many bytes it has. It may write into those
	// bytes if the verdict is good.
	decode(b []byte, e *Entry) (int, verdict)
	// resync returns the index after the next place in b where a record may begin, or 0 if there is none.
	resync(b []byte) int
}

const (
	readSize = 256 << 10
	// maxRecord is the longest record: 16 KiB of which each byte is escaped to six, and attributes.
	maxRecord = 1 << 20
)

// A scanner yields the records of one file, as far as they are complete.
type scanner struct {
	format format
	src    io.Reader
	id     fileID

	buf  []byte
	r, w int
	off  int64 // of buf[r] in the decompressed file

	lost    bool // inside of a record that is too long
	skipped int64
}

// reset makes s read src from off on; the buffer is kept.
func (s *scanner) reset(f format, src io.Reader, id fileID, off int64) {
	if s.buf == nil {
		s.buf = make([]byte, readSize)
	}
	s.format, s.src, s.id = f, src, id
	s.r, s.w, s.off, s.lost = 0, 0, off, false
}

// next decodes the next record into e. It returns io.EOF when there is no complete one; the bytes of an incomplete one
// are kept, and next can be called again when the file has grown.
func (s *scanner) next(e *Entry) error {
	for {
		if b := s.buf[s.r:s.w]; len(b) > 0 {
			if s.lost {
				n := s.format.resync(b)
				if s.lost = n == 0; s.lost {
					n = len(b)
				}
				s.advance(n)
				continue
			}
			n, v := s.format.decode(b, e)
			s.advance(n)
			switch v {
			case good:
				e.pos = position{id: s.id, off: s.off}
				e.Truncated = false
				return nil
			case bad:
				s.skipped++
				continue
			case skip:
				continue
			case more:
			}
		}
		if err := s.fill(); err != nil {
			return err
		}
	}
}

func (s *scanner) advance(n int) {
	s.r += n
	s.off += int64(n)
}

// fill reads more bytes, or returns io.EOF.
func (s *scanner) fill() error {
	if s.r > 0 {
		s.w = copy(s.buf, s.buf[s.r:s.w])
		s.r = 0
	}
	if s.w == len(s.buf) {
		if len(s.buf) >= maxRecord {
			s.lost = true
			s.skipped++
			return nil
		}
		bigger := make([]byte, min(2*len(s.buf), maxRecord))
		copy(bigger, s.buf)
		s.buf = bigger
	}
	for range 100 {
		n, err := s.src.Read(s.buf[s.w:])
		s.w += n
		if n > 0 {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return errors.Join(io.ErrNoProgress)
}

// pending is how many bytes of an incomplete record are held.
func (s *scanner) pending() int { return s.w - s.r }
