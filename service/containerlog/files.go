package containerlog

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/droverhq/drover/runtime"
)

// A logFile is one open file of a log.
type logFile struct {
	f    *os.File
	name string
	id   fileID
	gz   bool
	size int64 // when it was opened
}

func (l *logFile) close() { _ = l.f.Close() }

func closeAll(files []*logFile) {
	for _, l := range files {
		l.close()
	}
}

// openFile opens a regular file; anything else is fs.ErrInvalid.
func openFile(name string) (*logFile, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return &logFile{f: f, name: name, id: identify(info), gz: strings.HasSuffix(name, ".gz"), size: info.Size()}, nil
}

func identify(info fs.FileInfo) fileID {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fileID{}
	}
	return fileID{dev: uint64(st.Dev), ino: st.Ino} //nolint:unconvert // Dev is narrower on some systems
}

func identifyName(name string) (fileID, error) {
	info, err := os.Stat(name)
	if err != nil {
		return fileID{}, err
	}
	return identify(info), nil
}

// rotated lists the rotated files of the log at base, the oldest first: base.2.gz, base.1, of keep files in all. Where a
// file is being compressed and both forms exist, the finished one is named.
func rotated(base string, keep int) ([]string, error) {
	dir, err := os.ReadDir(filepath.Dir(base))
	if err != nil {
		return nil, err
	}
	names := map[int]string{}
	prefix := filepath.Base(base) + "."
	for _, entry := range dir {
		number, ok := strings.CutPrefix(entry.Name(), prefix)
		if !ok {
			continue
		}
		number, gz := strings.CutSuffix(number, ".gz")
		n, err := strconv.Atoi(number)
		if err != nil || n < 1 || n >= keep {
			continue
		}
		if _, both := names[n]; !both || !gz {
			names[n] = filepath.Join(filepath.Dir(base), entry.Name())
		}
	}
	order := make([]int, 0, len(names))
	for n := range names {
		order = append(order, n)
	}
	slices.Sort(order)
	slices.Reverse(order)
	out := make([]string, len(order))
	for i, n := range order {
		out[i] = names[n]
	}
	return out, nil
}

// keptFiles returns how many files of a log, rotated ones included, dockerd shows: an older one may lie beside them. It
// stands in the configuration of the container, in folder; byDefault applies where that does not say, and all files
// count where it cannot be read.
func keptFiles(folder string, byDefault int) int {
	b, err := os.ReadFile(filepath.Join(folder, "hostconfig.json"))
	if err != nil {
		return math.MaxInt
	}
	var c struct {
		LogConfig struct {
			Config map[string]string
		}
	}
	if json.Unmarshal(b, &c) != nil {
		return math.MaxInt
	}
	if n, err := strconv.Atoi(c.LogConfig.Config["max-file"]); err == nil && n > 0 {
		return n
	}
	return byDefault
}

// errMoved says that files were rotated while they were being opened.
var errMoved = errors.New("the log was rotated meanwhile")

// openSet opens the files of the log at base, keep of them at most, the oldest first and the current one last. It sees no
// file twice and misses none in between, even while dockerd rotates. The caller closes them.
func openSet(base string, keep int) ([]*logFile, error) {
	var err error
	for range 10 {
		var files []*logFile
		if files, err = openOnce(base, keep); err == nil {
			return files, nil
		}
		closeAll(files)
		if !errors.Is(err, errMoved) {
			break
		}
	}
	return nil, err
}

func openOnce(base string, keep int) ([]*logFile, error) {
	names, err := rotated(base, keep)
	if err != nil {
		return nil, err
	}
	var files []*logFile
	for _, name := range append(names, base) {
		l, err := openFile(name)
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) && name != base {
				err = errMoved
			}
			return files, err
		}
		files = append(files, l)
	}
	for _, l := range files {
		if id, err := identifyName(l.name); err != nil || id != l.id {
			return files, errMoved
		}
	}
	return files, nil
}

// successor opens the file that came after the one with id, or returns errMoved if it cannot tell: the file is not
// among the files of the log, or no longer.
func successor(base string, id fileID) (*logFile, error) {
	for range 10 {
		names, err := rotated(base, math.MaxInt)
		if err != nil {
			return nil, err
		}
		names = append(names, base)
		for i, name := range names[:len(names)-1] {
			if got, err := identifyName(name); err != nil || got != id {
				continue
			}
			l, err := openFile(names[i+1])
			if err != nil {
				break
			}
			// The names shift together: if this one still fits, so did the next.
			if got, err := identifyName(name); err == nil && got == id {
				return l, nil
			}
			l.close()
			break
		}
	}
	return nil, errMoved
}

// reader returns the decompressed content of l from off on.
func (l *logFile) reader(off int64) (io.Reader, error) {
	if !l.gz {
		_, err := l.f.Seek(off, io.SeekStart)
		return l.f, err
	}
	if _, err := l.f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	z, err := gzip.NewReader(l.f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Base(l.name), err)
	}
	if _, err := io.CopyN(io.Discard, z, off); err != nil && err != io.EOF {
		return nil, fmt.Errorf("%s: %w", filepath.Base(l.name), err)
	}
	return z, nil
}

// compressedUntil returns the time of the last record of a compressed file, which dockerd notes in the header.
func (l *logFile) compressedUntil() (int64, bool) {
	if _, err := l.f.Seek(0, io.SeekStart); err != nil {
		return 0, false
	}
	z, err := gzip.NewReader(l.f)
	if err != nil {
		return 0, false
	}
	var note struct {
		LastTime time.Time `json:"lastTime"`
	}
	if json.Unmarshal(z.Extra, &note) != nil || note.LastTime.IsZero() {
		return 0, false
	}
	return note.LastTime.UnixNano(), true
}

// explainOpen gives an error of the file system one of runtime's classes.
func explainOpen(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("log file: %w: %w", runtime.ErrNotFound, err)
	}
	return fmt.Errorf("log file: %w: %w", runtime.ErrUnavailable, err)
}
