package events

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/sirupsen/logrus"
)

const (
	segmentSize  = 2 << 20  // bytes after which the next segment begins
	maxSegments  = 2        // that are kept; beyond, the oldest is retired
	maxLog       = 64 << 20 // bytes of all segments; beyond, replies stay in memory
	maxNotes     = 256 << 10
	retireAtOnce = 512 << 10 // bytes of replies in one transaction
)

var errLogFull = errors.New("the journal's log is full")

// journal keeps final replies until the server took them, and remembers what was answered. A reply is appended to a log
// with one write, which makes it safe against the death of the process; sync makes what was written safe against power
// loss. When a segment of the log is due, its tombstones and what still waits in it move to a bbolt file in one
// transaction, and the segment is removed. The bbolt file's lock keeps other processes away from the log as well.
//
// A journal without a path, or whose folder cannot be used, is in memory.
type journal struct {
	path string
	log  logrus.FieldLogger
	disk bool // false in memory

	write func(f *os.File, b []byte, off int64) (int, error) // what a test may break

	mu       sync.RWMutex
	bolt     *boltStore // guarded by mu
	segments []*segment // guarded by mu; oldest first, the last one is written to
	unsynced bool       // guarded by mu

	notesMu sync.Mutex // taken after mu
	notes   []byte     // guarded by notesMu; tombstones that wait for the next write
}

// place says where the frame of a stored reply is: in a segment, in memory, or else in the bbolt file.
type place struct {
	segment *segment
	off     int64
	memory  []byte
}

func (p place) inBolt() bool { return p.segment == nil && p.memory == nil }

func (p place) same(q place) bool { return p.segment == q.segment && p.off == q.off }

// stored is a reply that an earlier process left.
type stored struct {
	record
	place place
}

// openJournal opens the journal at path and returns what it holds, in order of seq but for what is in the log. A file
// that is damaged is moved aside, and one that cannot be used at all is replaced by memory; both are logged. The error is
// ErrJournalInUse.
func openJournal(ctx context.Context, path string, log logrus.FieldLogger) (*journal, []stored, []tombstone, error) {
	j := &journal{path: path, log: log, write: (*os.File).WriteAt}
	if path == "" {
		return j, nil, nil, nil
	}
	bolt, records, done, err := openBolt(ctx, path)
	if errors.Is(err, errBroken) {
		aside := path + ".damaged"
		log.WithError(err).WithField("moved to", aside).Error("the journal is damaged and starts anew; old replies that it held and the server has not are lost")
		if err = os.Rename(path, aside); err == nil {
			bolt, records, done, err = openBolt(ctx, path)
		}
	}
	switch {
	case errors.Is(err, ErrJournalInUse):
		return nil, nil, nil, err
	case err != nil:
		log.WithError(err).Error("the journal cannot be used; replies are kept in memory and do not survive a restart")
		return j, nil, nil, nil
	}
	all := make([]stored, 0, len(records))
	for _, r := range records {
		all = append(all, stored{record: r})
	}
	logged, buried, err := j.openLog()
	if err != nil {
		log.WithError(err).Error("the journal's log cannot be used; replies are kept in memory and do not survive a restart")
		return j, nil, nil, errors.Join(bolt.close())
	}
	j.bolt, j.disk = bolt, true
	return j, append(all, logged...), append(done, buried...), nil
}

// openLog opens every segment and reads it. The youngest is written on.
func (j *journal) openLog() (replies []stored, done []tombstone, err error) {
	numbers, err := segmentNumbers(j.path)
	if err != nil {
		return nil, nil, err
	}
	if len(numbers) == 0 {
		numbers = []uint64{1}
	}
	for _, n := range numbers {
		s, err := openSegment(j.path, n)
		if err != nil {
			return nil, nil, errors.Join(err, j.closeSegments())
		}
		j.segments = append(j.segments, s)
		whole, err := s.replay(s.size, func(off int64, frame []byte) error {
			if r, err := decodeRecord(frame); err == nil {
				replies = append(replies, stored{record: r, place: place{segment: s, off: off}})
				return nil
			}
			t, err := decodeTombstone(frame)
			done = append(done, t)
			return err
		})
		if err != nil {
			if err := s.cut(whole, j.log); err != nil {
				return nil, nil, errors.Join(err, j.closeSegments())
			}
		}
	}
	return replies, done, nil
}

// put appends a reply's frame. It is safe against the death of the process when put returns. In memory, the frame itself
// is the place.
func (j *journal) put(frame []byte) (place, error) {
	if !j.disk {
		return place{memory: frame}, nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.flushLocked(); err != nil {
		return place{}, err
	}
	return j.appendLocked(frame)
}

// appendLocked writes b to the youngest segment, or to the next one if that is full.
func (j *journal) appendLocked(b []byte) (place, error) {
	if len(j.segments) == 0 {
		return place{}, os.ErrClosed // of a handler that outlived its client
	}
	total := int64(len(b))
	for _, s := range j.segments {
		total += s.size
	}
	if total > maxLog {
		return place{}, errLogFull
	}
	s := j.segments[len(j.segments)-1]
	if s.size >= segmentSize {
		next, err := openSegment(j.path, s.n+1)
		if err != nil {
			return place{}, err
		}
		j.segments = append(j.segments, next)
		s = next
	}
	off := s.size
	if _, err := j.write(s.file, b, off); err != nil {
		return place{}, errors.Join(err, s.file.Truncate(off)) // no half frame stays behind
	}
	s.size += int64(len(b))
	j.unsynced = true
	return place{segment: s, off: off}, nil
}

// note appends a tombstone, a little later: it goes with the next reply, or with flush. It does not wait for the disk.
func (j *journal) note(t *tombstone) {
	if !j.disk {
		return
	}
	j.notesMu.Lock()
	defer j.notesMu.Unlock()
	if len(j.notes) < maxNotes { // beyond, the disk has been full for long, and a restart may repeat what was taken
		j.notes = t.appendFrame(j.notes)
	}
}

// flush writes what was noted.
func (j *journal) flush() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.flushLocked()
}

func (j *journal) flushLocked() error {
	j.notesMu.Lock()
	notes := j.notes
	j.notes = nil
	j.notesMu.Unlock()
	if len(notes) == 0 {
		return nil
	}
	_, err := j.appendLocked(notes)
	j.notesMu.Lock()
	defer j.notesMu.Unlock()
	switch {
	case err != nil:
		j.notes = append(notes, j.notes...)
	case j.notes == nil && cap(notes) <= 16<<10:
		j.notes = notes[:0]
	}
	return err
}

// get reads a reply's frame.
func (j *journal) get(p place, seq uint64, size int) ([]byte, error) {
	switch {
	case p.memory != nil:
		return p.memory, nil
	case !j.disk:
		return nil, errGone
	}
	j.mu.RLock()
	defer j.mu.RUnlock()
	if p.segment == nil {
		return j.bolt.get(seq)
	}
	b := make([]byte, size)
	_, err := p.segment.file.ReadAt(b, p.off)
	if err != nil {
		return nil, err
	}
	if _, got, _, err := openFrame(b); err != nil || got != seq {
		return nil, fmt.Errorf("%w: reply %d", errBroken, seq)
	}
	return b, nil
}

// sync makes everything that was written safe against power loss. It is called by one goroutine alone, and blocks for as
// long as the disk does.
func (j *journal) sync() error {
	j.mu.Lock()
	if !j.disk || !j.unsynced {
		j.mu.Unlock()
		return nil
	}
	j.unsynced = false
	files := make([]*os.File, 0, len(j.segments))
	for _, s := range j.segments {
		files = append(files, s.file)
	}
	j.mu.Unlock()
	err := syncFolder(j.path) // there may be a new one
	for _, f := range files {
		err = errors.Join(err, f.Sync())
	}
	return err
}

func syncFolder(path string) error {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// due returns the oldest segment when there are too many.
func (j *journal) due() *segment {
	j.mu.RLock()
	defer j.mu.RUnlock()
	if len(j.segments) <= maxSegments {
		return nil
	}
	return j.segments[0]
}

// retire moves the replies of s that wanted names and the tombstones that known knows to the bbolt file, together with
// the changes in b, and removes s. moved is called for each reply once it is safe in its new place.
func (j *journal) retire(s *segment, b *batch, wanted func(seq uint64) bool, known func(*tombstone) bool, moved func(seq uint64)) error {
	j.mu.RLock()
	size, bolt := s.size, j.bolt
	j.mu.RUnlock()
	bytes := 0
	commit := func() error {
		if b.empty() {
			return nil
		}
		if err := bolt.apply(b); err != nil {
			return err
		}
		for i := range b.put {
			moved(b.put[i].seq)
		}
		*b, bytes = batch{}, 0
		return nil
	}
	_, err := s.replay(size, func(_ int64, frame []byte) error {
		if kind, seq, _, _ := openFrame(frame); kind == frameReply {
			if wanted(seq) {
				b.put = append(b.put, record{seq: seq, frame: append([]byte(nil), frame...)})
				bytes += len(frame)
			}
		} else if t, err := decodeTombstone(frame); err == nil && known(&t) {
			b.done = append(b.done, t)
		}
		if bytes >= retireAtOnce {
			return commit()
		}
		return nil
	})
	if err != nil && !errors.Is(err, errNoFrame) {
		return err
	}
	if err := commit(); err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.segments = j.segments[1:]
	return errors.Join(s.file.Close(), os.Remove(s.path))
}

// replace puts a new bbolt file in the place of one that turned out damaged at work.
func (j *journal) replace() error {
	// The old one stays open: closing it may fault, and its lock is of no use to anyone.
	if err := os.Rename(j.path, j.path+".damaged"); err != nil {
		return err
	}
	fresh, _, _, err := openBolt(context.Background(), j.path)
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.bolt = fresh
	return nil
}

func (j *journal) closeSegments() (err error) {
	for _, s := range j.segments {
		err = errors.Join(err, s.file.Close())
	}
	j.segments = nil
	return err
}

// close writes and syncs what is left.
func (j *journal) close() error {
	if !j.disk {
		return nil
	}
	err := errors.Join(j.flush(), j.sync())
	j.mu.Lock()
	defer j.mu.Unlock()
	return errors.Join(err, j.closeSegments(), j.bolt.close())
}
