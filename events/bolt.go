package events

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

const (
	bucketReplies = "replies" // seq -> record; removed once the server has it and the budget for repeats is used up
	bucketDone    = "done"    // seq -> tombstone

	boltMaxSize  = 256 << 20
	boltLockWait = 12 * time.Second // a predecessor may still be draining
	boltLockTry  = 500 * time.Millisecond
)

// ErrJournalInUse says that another process holds the journal: two agents share one state directory.
var ErrJournalInUse = errors.New("another process holds the journal")

// boltStore is the journal's long memory: one bbolt file with the tombstones, and with the replies that nobody took for
// so long that their log segment is due. A transaction is safe against power loss when apply returns.
type boltStore struct {
	db *bbolt.DB
}

// A batch is what one transaction of a boltStore changes.
type batch struct {
	put         []record
	done        []tombstone
	dropReplies []uint64
	dropDone    []uint64
}

func (b *batch) empty() bool {
	return len(b.put)+len(b.done)+len(b.dropReplies)+len(b.dropDone) == 0
}

func openBolt(ctx context.Context, path string) (*boltStore, []record, []tombstone, error) {
	if err := checkSize(path); err != nil {
		return nil, nil, nil, err
	}
	s := &boltStore{}
	var records []record
	var done []tombstone
	err := guard(func() (err error) {
		for waited := time.Duration(0); ; waited += boltLockTry {
			s.db, err = bbolt.Open(path, 0o600, &bbolt.Options{
				Timeout: boltLockTry, FreelistType: bbolt.FreelistMapType, MaxSize: boltMaxSize, NoStatistics: true,
			})
			if !errors.Is(err, bolterrors.ErrTimeout) || waited >= boltLockWait || ctx.Err() != nil {
				break
			}
		}
		if err != nil {
			return err
		}
		if s.whole() {
			return nil
		}
		return s.db.Update(func(tx *bbolt.Tx) error {
			for _, name := range []string{bucketReplies, bucketDone} {
				if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
					return err
				}
			}
			return nil
		})
	})
	if err == nil {
		err = guard(func() (err error) {
			// Reading every record first makes sure that Check, which runs in a goroutine of its own where a fault could
			// not be recovered from, meets no page that faults.
			if records, done, err = s.load(); err != nil {
				return fmt.Errorf("%w: %w", errBroken, err)
			}
			return s.check()
		})
	}
	switch {
	case err == nil:
		return s, records, done, nil
	case errors.Is(err, bolterrors.ErrTimeout):
		err = fmt.Errorf("%s: %w", path, ErrJournalInUse)
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrChecksum), errors.Is(err, bolterrors.ErrVersionMismatch):
		err = fmt.Errorf("%w: %w", errBroken, err)
	}
	if s.db != nil {
		_ = guard(s.db.Close) // frees the lock
	}
	return nil, nil, nil, err
}

// checkSize finds a file that was cut short. bbolt would map it and fault when it reads beyond the end.
func checkSize(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil || fi.Size() == 0 {
		return err
	}
	// Two meta pages, each with a header of 16 bytes; the page size is at 24 and the number of pages at 56.
	head := make([]byte, 64)
	if _, err := io.ReadFull(f, head); err != nil {
		return fmt.Errorf("%w: %w", errBroken, err)
	}
	pageSize := int64(binary.NativeEndian.Uint32(head[24:]))
	if pageSize < 512 || pageSize > 1<<16 {
		return fmt.Errorf("%w: page size %d", errBroken, pageSize)
	}
	pages := binary.NativeEndian.Uint64(head[56:])
	if _, err := f.ReadAt(head, pageSize); err != nil {
		return fmt.Errorf("%w: second page: %w", errBroken, err)
	}
	// The younger of the two knows of more pages; either may be the valid one.
	pages = min(pages, binary.NativeEndian.Uint64(head[56:]))
	if pages > uint64(fi.Size()/pageSize) {
		return fmt.Errorf("%w: %d bytes, cut short of %d pages", errBroken, fi.Size(), pages)
	}
	return nil
}

// guard runs f and makes errBroken of a panic or a memory fault in it: bbolt trusts the file it maps.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("%w: %v", errBroken, v)
		}
	}()
	return f()
}

// whole reports whether the buckets are there.
func (s *boltStore) whole() bool {
	return s.db.View(func(tx *bbolt.Tx) error {
		if tx.Bucket([]byte(bucketReplies)) == nil || tx.Bucket([]byte(bucketDone)) == nil {
			return errGone
		}
		return nil
	}) == nil
}

func (s *boltStore) check() error {
	return s.db.View(func(tx *bbolt.Tx) error {
		var first error
		for err := range tx.Check() {
			if first == nil {
				first = fmt.Errorf("%w: %w", errBroken, err)
			}
		}
		return first
	})
}

func seqKey(seq uint64) []byte { return binary.BigEndian.AppendUint64(nil, seq) }

func (s *boltStore) apply(b *batch) error {
	return guard(func() error {
		return s.db.Update(func(tx *bbolt.Tx) error {
			replies, done := tx.Bucket([]byte(bucketReplies)), tx.Bucket([]byte(bucketDone))
			replies.FillPercent, done.FillPercent = 1, 1 // keys only grow
			for _, r := range b.put {
				if err := replies.Put(seqKey(r.seq), r.frame); err != nil {
					return err
				}
			}
			for i := range b.done {
				if err := done.Put(seqKey(b.done[i].seq), b.done[i].appendFrame(nil)); err != nil {
					return err
				}
			}
			for _, seq := range b.dropReplies {
				if err := replies.Delete(seqKey(seq)); err != nil {
					return err
				}
			}
			for _, seq := range b.dropDone {
				if err := done.Delete(seqKey(seq)); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// get returns a copy of a reply's frame.
func (s *boltStore) get(seq uint64) (frame []byte, err error) {
	err = guard(func() error {
		return s.db.View(func(tx *bbolt.Tx) error {
			v := tx.Bucket([]byte(bucketReplies)).Get(seqKey(seq))
			if v == nil {
				return errGone
			}
			frame = append([]byte(nil), v...)
			return nil
		})
	})
	return frame, err
}

// load reads everything, without the replies' frames, in order of seq.
func (s *boltStore) load() (records []record, done []tombstone, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		err := tx.Bucket([]byte(bucketReplies)).ForEach(func(_, v []byte) error {
			r, err := decodeRecord(v)
			records = append(records, r)
			return err
		})
		if err != nil {
			return err
		}
		return tx.Bucket([]byte(bucketDone)).ForEach(func(_, v []byte) error {
			t, err := decodeTombstone(v)
			done = append(done, t)
			return err
		})
	})
	return records, done, err
}

func (s *boltStore) close() error { return guard(s.db.Close) }
