package events

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/droverhq/drover/events/wire"
)

// The journal is made of frames: a length, a checksum of what follows, a kind, a sequence number, and what the kind
// asks for. A reply's frame holds its deadline, its outcome, the event's id and key, and the reply in Drover's form; a
// tombstone's holds the time, the outcome and the event's id.
const (
	frameHeader = 4 + 4 + 1 + 8
	maxFrame    = wire.MaxFrame + 1<<16

	frameReply     = 1
	frameTombstone = 2

	replyHeader     = 8 + 1
	tombstoneHeader = 8 + 1
)

var (
	errGone    = errors.New("the reply is not in the journal")
	errBroken  = errors.New("the journal is damaged")
	errNoFrame = errors.New("no whole frame")
)

// A record is one final reply as the journal keeps it.
type record struct {
	seq      uint64 // order of answering
	id       string // of the event
	key      string // replies of one key leave in order
	deadline time.Time
	failed   bool   // an error reply
	size     int    // of frame
	frame    []byte // nil where it is not in memory
	body     int    // where the reply begins in frame
}

// A tombstone remembers that an event was answered and the server has the reply, or that there was none to send.
type tombstone struct {
	seq    uint64
	id     string
	at     time.Time
	failed bool
}

// newRecord encodes reply.
func newRecord(seq uint64, key string, reply *wire.Reply, deadline time.Time) record {
	r := record{seq: seq, id: reply.EventID(), key: key, deadline: deadline, failed: reply.Transitioning == wire.TransitioningError}
	size := len(reply.Data) + len(reply.TransitioningMessage) + len(reply.ID) + len(reply.Name) + 2*len(r.id) + len(key) +
		len(reply.ResourceID) + len(reply.ResourceType) + 256
	b := beginFrame(make([]byte, 0, size), frameReply, seq)
	b = binary.BigEndian.AppendUint64(b, uint64(deadline.UnixMilli()))
	b = append(b, outcome(r.failed))
	for _, s := range []string{r.id, key} {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	r.body = len(b)
	b = wire.AppendReply(b, reply)
	endFrame(b)
	r.frame, r.size = b, len(b)
	return r
}

// appendFrame appends t's frame.
func (t *tombstone) appendFrame(dst []byte) []byte {
	at := len(dst)
	dst = beginFrame(dst, frameTombstone, t.seq)
	dst = binary.BigEndian.AppendUint64(dst, uint64(t.at.UnixMilli()))
	dst = append(dst, outcome(t.failed))
	dst = append(dst, t.id...)
	endFrame(dst[at:])
	return dst
}

func outcome(failed bool) byte {
	if failed {
		return 1
	}
	return 0
}

func beginFrame(dst []byte, kind byte, seq uint64) []byte {
	dst = append(dst, 0, 0, 0, 0, 0, 0, 0, 0, kind)
	return binary.BigEndian.AppendUint64(dst, seq)
}

func endFrame(b []byte) {
	binary.BigEndian.PutUint32(b, uint32(len(b)-8))
	binary.BigEndian.PutUint32(b[4:], checksum(b[8:]))
}

func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// frameSize reads how long the frame that begins with head (8 bytes) is.
func frameSize(head []byte) (int, error) {
	n := int(binary.BigEndian.Uint32(head)) + 8
	if n < frameHeader || n > maxFrame {
		return 0, errNoFrame
	}
	return n, nil
}

// openFrame checks that b is one whole frame.
func openFrame(b []byte) (kind byte, seq uint64, payload []byte, err error) {
	if len(b) < frameHeader {
		return 0, 0, nil, errNoFrame
	}
	if n, err := frameSize(b); err != nil || n != len(b) || checksum(b[8:]) != binary.BigEndian.Uint32(b[4:]) {
		return 0, 0, nil, errNoFrame
	}
	return b[8], binary.BigEndian.Uint64(b[9:]), b[frameHeader:], nil
}

// decodeRecord reads a reply's frame. It does not keep the frame.
func decodeRecord(frame []byte) (record, error) {
	kind, seq, payload, err := openFrame(frame)
	if err != nil || kind != frameReply || len(payload) < replyHeader {
		return record{}, errNoFrame
	}
	r := record{seq: seq, deadline: time.UnixMilli(int64(binary.BigEndian.Uint64(payload))), failed: payload[8] == 1, size: len(frame)}
	rest := payload[replyHeader:]
	for _, dst := range []*string{&r.id, &r.key} {
		n, used := binary.Uvarint(rest)
		if used <= 0 || n > uint64(len(rest)-used) {
			return record{}, fmt.Errorf("%w: reply %d", errNoFrame, seq)
		}
		*dst = string(rest[used : used+int(n)])
		rest = rest[used+int(n):]
	}
	r.body = len(frame) - len(rest)
	return r, nil
}

// decodeTombstone reads a tombstone's frame.
func decodeTombstone(frame []byte) (tombstone, error) {
	kind, seq, payload, err := openFrame(frame)
	if err != nil || kind != frameTombstone || len(payload) < tombstoneHeader {
		return tombstone{}, errNoFrame
	}
	return tombstone{
		seq: seq, at: time.UnixMilli(int64(binary.BigEndian.Uint64(payload))), failed: payload[8] == 1, id: string(payload[tombstoneHeader:]),
	}, nil
}
