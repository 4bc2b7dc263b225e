package events

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/sirupsen/logrus"
)

// segment is one file of the journal's log. Frames are appended to the youngest; an old one is read once more when it
// is retired, and removed.
type segment struct {
	n    uint64 // counts up
	path string
	file *os.File
	size int64 // of whole frames; guarded by the journal's mu
}

const segmentInfix = ".log-"

func segmentPath(journal string, n uint64) string {
	return fmt.Sprintf("%s%s%08d", journal, segmentInfix, n)
}

// segmentNumbers lists the segments of a journal, oldest first.
func segmentNumbers(journal string) ([]uint64, error) {
	names, err := os.ReadDir(filepath.Dir(journal))
	if err != nil {
		return nil, err
	}
	var all []uint64
	for _, e := range names {
		if digits, ok := strings.CutPrefix(e.Name(), filepath.Base(journal)+segmentInfix); ok {
			if n, err := strconv.ParseUint(digits, 10, 64); err == nil {
				all = append(all, n)
			}
		}
	}
	slices.Sort(all)
	return all, nil
}

func openSegment(journal string, n uint64) (*segment, error) {
	s := &segment{n: n, path: segmentPath(journal, n)}
	var err error
	if s.file, err = os.OpenFile(s.path, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, err
	}
	fi, err := s.file.Stat()
	if err != nil {
		return nil, errors.Join(err, s.file.Close())
	}
	s.size = fi.Size()
	return s, nil
}

// replay calls each for every frame up to size and returns how many bytes of whole frames there are. frame is good
// until each returns.
func (s *segment) replay(size int64, each func(off int64, frame []byte) error) (whole int64, err error) {
	r := bufio.NewReaderSize(io.NewSectionReader(s.file, 0, size), 64<<10)
	var frame []byte
	for whole < size {
		head, err := r.Peek(8)
		if err != nil {
			return whole, errNoFrame
		}
		n, err := frameSize(head)
		if err != nil || whole+int64(n) > size {
			return whole, errNoFrame
		}
		frame = slices.Grow(frame[:0], n)[:n]
		if _, err := io.ReadFull(r, frame); err != nil {
			return whole, err
		}
		if _, _, _, err := openFrame(frame); err != nil {
			return whole, err
		}
		if err := each(whole, frame); err != nil {
			return whole, err
		}
		whole += int64(n)
	}
	return whole, nil
}

// cut shortens a segment whose end makes no sense, as after a loss of power, and puts the end aside.
func (s *segment) cut(whole int64, log logrus.FieldLogger) error {
	aside := s.path + ".damaged"
	log.WithFields(logrus.Fields{"file": s.path, "whole": whole, "of": s.size, "moved to": aside}).
		Error("the end of the journal's log is damaged; replies that it held and the server has not are lost")
	out, err := os.OpenFile(aside, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err == nil {
		_, err = io.Copy(out, io.NewSectionReader(s.file, whole, s.size-whole))
		err = errors.Join(err, out.Close())
	}
	if err != nil {
		log.WithError(err).Warn("putting the damaged end aside")
	}
	s.size = whole
	return s.file.Truncate(whole)
}
