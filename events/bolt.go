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

	"github.com/sirupsen/logrus"
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

// errBroken says that a journal file makes no sense.
var errBroken = errors.New("the journal is damaged")

// boltStore is a store in one bbolt file. A transaction is safe against the death of the process when apply returns,
// and against power loss when sync does. Power lost in the middle of a sync can damage the file; it is then found out
// when it is opened.
type boltStore struct {
	db *bbolt.DB
}

// openStore opens the journal at path. A file that is damaged is moved aside, and one that cannot be used at all is
// replaced by memory; both are logged. The error is ErrJournalInUse.
func openStore(ctx context.Context, path string, log logrus.FieldLogger) (store, []record, []tombstone, error) {
	if path == "" {
		return newMemoryStore(), nil, nil, nil
	}
	s, records, done, err := openBolt(ctx, path)
	if errors.Is(err, errBroken) {
		aside := path + ".damaged"
		log.WithError(err).WithField("moved to", aside).Error("the journal is damaged and starts anew; replies that it held and the server has not are lost")
		if err = os.Rename(path, aside); err == nil {
			s, records, done, err = openBolt(ctx, path)
		}
	}
	switch {
	case errors.Is(err, ErrJournalInUse):
		return nil, nil, nil, err
	case err != nil:
		log.WithError(err).Error("the journal cannot be used; replies are kept in memory and do not survive a restart")
		return newMemoryStore(), nil, nil, nil
	}
	return s, records, done, nil
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
				Timeout: boltLockTry, NoSync: true, NoGrowSync: true, FreelistType: bbolt.FreelistMapType, MaxSize: boltMaxSize, NoStatistics: true,
			})
			if !errors.Is(err, bolterrors.ErrTimeout) || waited >= boltLockWait || ctx.Err() != nil {
				break
			}
		}
		if err != nil {
			return err
		}
		err = s.db.Update(func(tx *bbolt.Tx) error {
			for _, name := range []string{bucketReplies, bucketDone} {
				if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		// Reading every record first makes sure that Check, which runs in a goroutine of its own where a fault could
		// not be recovered from, meets no page that faults.
		if records, done, err = s.load(); err != nil {
			return fmt.Errorf("%w: %w", errBroken, err)
		}
		return s.check()
	})
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
				if err := replies.Put(seqKey(r.seq), r.text); err != nil {
					return err
				}
			}
			for i := range b.done {
				if err := done.Put(seqKey(b.done[i].seq), b.done[i].encode()); err != nil {
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

func (s *boltStore) get(seq uint64) (body []byte, err error) {
	err = guard(func() error {
		return s.db.View(func(tx *bbolt.Tx) error {
			text := tx.Bucket([]byte(bucketReplies)).Get(seqKey(seq))
			if text == nil {
				return errGone
			}
			r, err := decodeRecord(seq, text)
			if err != nil {
				return fmt.Errorf("%w: %w", errBroken, err)
			}
			body = append([]byte(nil), text[r.body:]...)
			return nil
		})
	})
	return body, err
}

func (s *boltStore) load() (records []record, done []tombstone, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		err := tx.Bucket([]byte(bucketReplies)).ForEach(func(k, v []byte) error {
			if len(k) != 8 {
				return fmt.Errorf("a key of %d bytes", len(k))
			}
			r, err := decodeRecord(binary.BigEndian.Uint64(k), v)
			r.size = len(v)
			records = append(records, r)
			return err
		})
		if err != nil {
			return err
		}
		return tx.Bucket([]byte(bucketDone)).ForEach(func(k, v []byte) error {
			if len(k) != 8 {
				return fmt.Errorf("a key of %d bytes", len(k))
			}
			t, err := decodeTombstone(binary.BigEndian.Uint64(k), v)
			done = append(done, t)
			return err
		})
	})
	return records, done, err
}

func (s *boltStore) sync() error  { return s.db.Sync() }
func (s *boltStore) close() error { return errors.Join(s.db.Sync(), guard(s.db.Close)) }
