package containerlog

import "encoding/binary"

// localRecords decodes the files of the local driver: records of length, protobuf message, length; the lengths are
// big-endian 32-bit and there on both sides so that a file can be read backwards.
type localRecords struct{}

const localSize = 4

// Field numbers of the message, and of the one about a partial line in it.
const (
	localSource  = 1
	localTime    = 2
	localLine    = 3
	localPartial = 5

	partialLast = 1
)

func (localRecords) decode(b []byte, e *Entry) (int, verdict) {
	if len(b) < localSize {
		return 0, more
	}
	size := int64(binary.BigEndian.Uint32(b))
	total := size + 2*localSize
	if total > maxRecord {
		return len(b), bad
	}
	if int64(len(b)) < total {
		return 0, more
	}
	n := int(total)
	if int64(binary.BigEndian.Uint32(b[n-localSize:])) != size {
		return len(b), bad
	}
	msg := b[localSize : n-localSize]
	var source, line, partial []byte
	at := 0 // where line begins in msg
	e.nano, e.stamp = 0, nil
	for i := 0; i < len(msg); {
		f, ok := nextField(msg, &i)
		if !ok {
			return n, bad
		}
		switch f.number {
		case localSource:
			source = f.bytes
		case localTime:
			e.nano = int64(f.varint)
		case localLine:
			line, at = f.bytes, i-len(f.bytes)
		case localPartial:
			partial = f.bytes
		}
	}
	switch string(source) {
	case "stdout":
		e.Stderr = false
	case "stderr":
		e.Stderr = true
	default:
		return n, bad
	}
	// The driver stores lines without their newline. Behind the line is at least the second length, which was read: there is
	// room for the newline in place.
	if partial == nil || lastPart(partial) {
		end := localSize + at + len(line)
		b[end] = '\n'
		line = b[localSize+at : end+1]
	}
	e.Line = line
	return n, good
}

// lastPart reports whether the metadata of a partial line say that it is the last one.
func lastPart(b []byte) bool {
	for i := 0; i < len(b); {
		f, ok := nextField(b, &i)
		if !ok {
			return false
		}
		if f.number == partialLast {
			return f.varint != 0
		}
	}
	return false
}

// A field is one of a protobuf message.
type field struct {
	number uint64
	varint uint64
	bytes  []byte
}

// nextField reads the field at b[*i] and moves *i behind it.
func nextField(b []byte, i *int) (field, bool) {
	key, n := binary.Uvarint(b[*i:])
	if n <= 0 {
		return field{}, false
	}
	*i += n
	f := field{number: key >> 3}
	switch key & 7 {
	case 0:
		f.varint, n = binary.Uvarint(b[*i:])
		if n <= 0 {
			return field{}, false
		}
		*i += n
	case 1:
		*i += 8
	case 2:
		size, n := binary.Uvarint(b[*i:])
		if n <= 0 || size > uint64(len(b)-*i-n) {
			return field{}, false
		}
		f.bytes = b[*i+n : *i+n+int(size)]
		*i += n + int(size)
	case 5:
		*i += 4
	default:
		return field{}, false
	}
	return f, *i <= len(b)
}

// resync finds nothing: there is no mark in the file that a record begins with.
func (localRecords) resync([]byte) int { return 0 }
