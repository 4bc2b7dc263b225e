package cri

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	criv1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/droverhq/drover/runtime"
)

const (
	logBuffer  = 64 << 10
	maxEntry   = 1 << 20 // a longer entry is given in parts
	followPoll = 100 * time.Millisecond
)

// Logs reads the log files that the runtime writes: rotated ones first, compressed or not, then the current one, which
// is followed over its rotation. Entries that the runtime cut are joined.
func (e *Engine) Logs(ctx context.Context, id string, opts runtime.LogOptions, out, errOut io.Writer) error {
	c, err := e.find(ctx, id)
	if err != nil {
		return err
	}
	op := "reading the log of container " + id
	resp, v, err := e.status(ctx, c.GetId())
	if err != nil {
		return err
	}
	path := resp.GetStatus().GetLogPath()
	if path == "" {
		return &runtime.Error{Op: op, Kind: runtime.ErrUnsupported, Message: "the container was made without a log file"}
	}
	path = e.cfg.HostFS + path
	if !opts.Stdout && !opts.Stderr {
		opts.Stdout, opts.Stderr = true, true
	}
	r := &logReader{opts: opts, out: out, errOut: errOut, path: path, tty: v.Config.Tty}
	if err := r.history(ctx); err != nil {
		return logError(ctx, op, err)
	}
	if !opts.Follow {
		return nil
	}
	ended := func() (bool, error) {
		st, _, err := e.status(ctx, c.GetId())
		if errors.Is(err, runtime.ErrNotFound) {
			return true, nil
		}
		return err == nil && st.GetStatus().GetState() == criv1.ContainerState_CONTAINER_EXITED, err
	}
	return logError(ctx, op, r.follow(ctx, ended))
}

func logError(ctx context.Context, op string, err error) error {
	if err == nil || ctx.Err() != nil {
		return context.Cause(ctx)
	}
	kind := error(nil)
	if errors.Is(err, os.ErrNotExist) {
		kind = runtime.ErrNotFound
	}
	return &runtime.Error{Op: op, Kind: kind, Message: err.Error(), Cause: err}
}

// An entry is one line of output, joined from its parts.
type entry struct {
	stamp  []byte // RFC 3339 with nanoseconds
	stderr bool
	text   []byte // with its newline
}

type logReader struct {
	opts        runtime.LogOptions
	out, errOut io.Writer
	path        string
	tty         bool

	current *os.File
	partial [2]entry // what was cut, of each stream
	rest    []byte   // an unfinished line of the file
}

// errPast is the end of a reading that reached Until.
var errPast = errors.New("past the end of the range")

// history gives what is there, and leaves current open at its end for follow.
func (r *logReader) history(ctx context.Context) error {
	emit := r.write
	var last []entry
	if r.opts.Tail > 0 {
		emit = func(en entry) error {
			if len(last) == r.opts.Tail {
				last = append(last[:0], last[1:]...)
			}
			last = append(last, entry{bytes.Clone(en.stamp), en.stderr, bytes.Clone(en.text)})
			return nil
		}
	} else if r.opts.Tail < 0 {
		emit = func(entry) error { return nil }
	}
	files, err := r.rotated()
	if err != nil {
		return err
	}
	for _, name := range files {
		if err := r.readFile(ctx, name, emit); err != nil {
			return err
		}
	}
	if r.current, err = os.Open(r.path); err != nil {
		return err
	}
	if !r.opts.Follow {
		defer r.current.Close()
	}
	err = r.read(ctx, r.current, emit)
	if err == nil && !r.opts.Follow {
		err = r.unended(emit)
	}
	for _, en := range last {
		if err == nil {
			err = r.write(en)
		}
	}
	if errors.Is(err, errPast) {
		err = nil
	}
	if err != nil && r.opts.Follow {
		_ = r.current.Close() // the error that counts is err
	}
	return err
}

// rotated lists the files that the kubelet moved away, oldest first: NAME.TIMESTAMP, later NAME.TIMESTAMP.gz.
func (r *logReader) rotated() ([]string, error) {
	dir, base := filepath.Split(r.path)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, en := range entries {
		if strings.HasPrefix(en.Name(), base+".") && !strings.HasSuffix(en.Name(), ".tmp") {
			names = append(names, filepath.Join(dir, en.Name()))
		}
	}
	slices.Sort(names)
	return names, nil
}

func (r *logReader) readFile(ctx context.Context, name string, emit func(entry) error) error {
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil // removed by its rotation
	}
	if err != nil {
		return err
	}
	defer f.Close()
	var in io.Reader = f
	if strings.HasSuffix(name, ".gz") {
		z, err := gzip.NewReader(bufio.NewReader(f))
		if err != nil {
			return err
		}
		in = z
	}
	return r.read(ctx, in, emit)
}

// read gives the entries of a stream until its end for now.
func (r *logReader) read(ctx context.Context, in io.Reader, emit func(entry) error) error {
	buf := make([]byte, logBuffer)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := in.Read(buf)
		data := buf[:n]
		if len(r.rest) > 0 {
			data = append(r.rest, data...)
		}
		for {
			i := bytes.IndexByte(data, '\n')
			if i < 0 {
				break
			}
			if perr := r.line(data[:i], emit); perr != nil {
				return perr
			}
			data = data[i+1:]
		}
		r.rest = bytes.Clone(data)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// line takes one line of the file: STAMP STREAM TAGS TEXT.
func (r *logReader) line(line []byte, emit func(entry) error) error {
	stamp, rest, ok1 := bytes.Cut(line, []byte(" "))
	stream, rest, ok2 := bytes.Cut(rest, []byte(" "))
	tags, text, ok3 := bytes.Cut(rest, []byte(" "))
	if !ok1 || !ok2 || !ok3 {
		return nil // a line that was torn by a crash of the runtime
	}
	stderr := string(stream) == "stderr"
	p := &r.partial[index(stderr)]
	if len(p.text) == 0 {
		p.stamp, p.stderr = append(p.stamp[:0], stamp...), stderr
	}
	p.text = append(p.text, text...)
	partial := bytes.HasPrefix(tags, []byte("P"))
	if partial && len(p.text) < maxEntry {
		return nil
	}
	if !partial {
		p.text = append(p.text, '\n')
	}
	err := r.choose(*p, emit)
	p.text = p.text[:0]
	return err
}

// unended gives what was written at the end without a newline: its last part is marked as if more would come.
func (r *logReader) unended(emit func(entry) error) error {
	rest := r.partial
	if len(rest[0].text) > 0 && len(rest[1].text) > 0 && bytes.Compare(rest[0].stamp, rest[1].stamp) > 0 {
		rest[0], rest[1] = rest[1], rest[0]
	}
	for _, en := range rest {
		if len(en.text) == 0 {
			continue
		}
		if err := r.choose(en, emit); err != nil && !errors.Is(err, errPast) {
			return err
		}
	}
	return nil
}

func index(stderr bool) int {
	if stderr {
		return 1
	}
	return 0
}

// choose applies the streams and the time range.
func (r *logReader) choose(en entry, emit func(entry) error) error {
	if en.stderr && !r.opts.Stderr || !en.stderr && !r.opts.Stdout {
		return nil
	}
	if !r.opts.Since.IsZero() || !r.opts.Until.IsZero() {
		t, err := time.Parse(time.RFC3339Nano, string(en.stamp))
		if err == nil && t.Before(r.opts.Since) {
			return nil
		}
		if err == nil && !r.opts.Until.IsZero() && t.After(r.opts.Until) {
			return errPast
		}
	}
	return emit(en)
}

func (r *logReader) write(en entry) error {
	to := r.out
	if en.stderr && !r.tty {
		to = r.errOut
	}
	if to == nil {
		return nil
	}
	if !r.opts.Timestamps {
		_, err := to.Write(en.text)
		return err
	}
	_, err := to.Write(append(append(bytes.Clone(en.stamp), ' '), en.text...))
	return err
}

// follow goes on where history ended, until the container has ended and all was read.
func (r *logReader) follow(ctx context.Context, ended func() (bool, error)) error {
	defer func() { _ = r.current.Close() }() // only read from
	tick := time.NewTicker(followPoll)
	defer tick.Stop()
	last := false
	for n := 1; ; n++ {
		if err := r.read(ctx, r.current, r.write); err != nil {
			if errors.Is(err, errPast) {
				return nil
			}
			return err
		}
		next, err := r.replaced()
		if err != nil {
			return err
		}
		if next != nil {
			// What came between the last read and the rename is still in the old file.
			if err := r.read(ctx, r.current, r.write); err != nil {
				return errors.Join(err, next.Close())
			}
			_ = r.current.Close() // only read from
			r.current, last = next, false
			continue
		}
		if last {
			return r.unended(r.write)
		}
		if n%10 == 0 {
			if last, err = ended(); err != nil && ctx.Err() == nil && !errors.Is(err, runtime.ErrUnavailable) {
				return err
			}
			if last {
				continue // once more: the end came after the read
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// replaced returns the file that took the name, nil if it is the same one; a truncated one is begun anew.
func (r *logReader) replaced() (*os.File, error) {
	have, err := r.current.Stat()
	if err != nil {
		return nil, err
	}
	now, err := os.Stat(r.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // between the rename and the new file
	}
	if err != nil {
		return nil, err
	}
	if os.SameFile(have, now) {
		at, err := r.current.Seek(0, io.SeekCurrent)
		if err == nil && at > now.Size() {
			r.rest = nil
			_, err = r.current.Seek(0, io.SeekStart)
		}
		return nil, err
	}
	return os.Open(r.path)
}
