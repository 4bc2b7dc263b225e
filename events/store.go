package events

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"sync"
	"time"

	"github.com/droverhq/drover/events/wire"
)

// A record is one final reply as the journal keeps it. Its text is one buffer: a header and, from body on, the reply in
// Drover's form.
type record struct {
	seq      uint64 // order of answering, and the key in the journal
	id       string // of the event
	key      string // the event's ordering key
	deadline time.Time
	failed   bool // an error reply
	size     int  // of text
	text     []byte
	body     int // where the reply begins in text
}

// A tombstone remembers that an event was answered and the server has the reply, or that there was none to send.
type tombstone struct {
	seq    uint64
	id     string
	at     time.Time
	failed bool
}

// A batch is what one transaction of a store changes.
type batch struct {
	put         []*record
	done        []tombstone
	dropReplies []uint64
	dropDone    []uint64
}

func (b *batch) len() int { return len(b.put) + len(b.done) + len(b.dropReplies) + len(b.dropDone) }

// A store keeps replies and tombstones. apply is called by one goroutine at a time, get and sync by any.
type store interface {
	apply(*batch) error                      // all or nothing
	get(seq uint64) (body []byte, err error) // a copy of the reply's JSON; errGone if there is none
	load() ([]record, []tombstone, error)    // everything, without the replies' text, in order of seq
	sync() error                             // makes what was applied safe against power loss
	close() error
}

// errGone says that a store does not hold a reply any more.
var errGone = errors.New("the reply is not in the journal")

const (
	recordFormat = 1
	recordHeader = 1 + 4 + 8 + 1 // format, checksum of what follows, deadline, outcome
)

func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// newRecord encodes reply, the answer to an event with the given key.
func newRecord(seq uint64, key string, reply *wire.Reply, deadline time.Time) *record {
	r := &record{seq: seq, id: reply.EventID(), key: key, deadline: deadline, failed: reply.Transitioning == wire.TransitioningError}
	b := make([]byte, recordHeader, recordHeader+len(reply.Data)+len(reply.TransitioningMessage)+512)
	b[0] = recordFormat
	binary.BigEndian.PutUint64(b[5:], uint64(deadline.UnixMilli()))
	if r.failed {
		b[13] = 1
	}
	b = binary.AppendUvarint(b, uint64(len(r.id)))
	b = append(b, r.id...)
	b = binary.AppendUvarint(b, uint64(len(key)))
	b = append(b, key...)
	r.body = len(b)
	b = wire.AppendReply(b, reply)
	binary.BigEndian.PutUint32(b[1:], checksum(b[5:]))
	r.text, r.size = b, len(b)
	return r
}

// decodeRecord reads a record and checks that it is whole. The text is not kept.
func decodeRecord(seq uint64, text []byte) (record, error) {
	r := record{seq: seq}
	bad := func(why string) (record, error) { return record{}, fmt.Errorf("reply %d: %s", seq, why) }
	if len(text) < recordHeader || text[0] != recordFormat {
		return bad("unknown format")
	}
	if checksum(text[5:]) != binary.BigEndian.Uint32(text[1:]) {
		return bad("wrong checksum")
	}
	r.deadline = time.UnixMilli(int64(binary.BigEndian.Uint64(text[5:])))
	r.failed = text[13] == 1
	rest := text[recordHeader:]
	for _, dst := range []*string{&r.id, &r.key} {
		n, used := binary.Uvarint(rest)
		if used <= 0 || n > uint64(len(rest)-used) {
			return bad("cut short")
		}
		*dst = string(rest[used : used+int(n)])
		rest = rest[used+int(n):]
	}
	r.body = len(text) - len(rest)
	return r, nil
}

const tombstoneHeader = 8 + 1 // time, outcome

func (t *tombstone) encode() []byte {
	b := make([]byte, tombstoneHeader, tombstoneHeader+len(t.id))
	binary.BigEndian.PutUint64(b, uint64(t.at.UnixMilli()))
	if t.failed {
		b[8] = 1
	}
	return append(b, t.id...)
}

func decodeTombstone(seq uint64, text []byte) (tombstone, error) {
	if len(text) < tombstoneHeader {
		return tombstone{}, fmt.Errorf("tombstone %d: cut short", seq)
	}
	return tombstone{
		seq: seq, at: time.UnixMilli(int64(binary.BigEndian.Uint64(text))), failed: text[8] == 1, id: string(text[tombstoneHeader:]),
	}, nil
}

// memoryStore is the store of a client without a journal file.
type memoryStore struct {
	mu     sync.Mutex
	bodies map[uint64][]byte // guarded by mu
}

func newMemoryStore() *memoryStore { return &memoryStore{bodies: map[uint64][]byte{}} }

func (s *memoryStore) apply(b *batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range b.put {
		s.bodies[r.seq] = r.text[r.body:]
	}
	for _, seq := range b.dropReplies {
		delete(s.bodies, seq)
	}
	return nil
}

func (s *memoryStore) get(seq uint64) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b, ok := s.bodies[seq]; ok {
		return b, nil
	}
	return nil, errGone
}

func (s *memoryStore) load() ([]record, []tombstone, error) { return nil, nil, nil }
func (s *memoryStore) sync() error                          { return nil }
func (s *memoryStore) close() error                         { return nil }
