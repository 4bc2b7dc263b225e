package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
)

var tailOptions = optionTable{
	short: "n:c:fFqvs:",
	long: map[string]string{
		"lines": "n=", "bytes": "c=", "follow": "f?", "quiet": "q", "silent": "q", "verbose": "v",
		"retry": "F", "sleep-interval": "s=",
	},
}

// obsoleteTail reads -20 and -20f.
func obsoleteTail(text string) []option {
	digits := strings.TrimRight(text, "fF")
	opts := []option{{"n", digits}}
	if len(digits) < len(text) {
		opts = append(opts, option{name: "f"})
	}
	return opts
}

type tailSpec struct {
	count     int64
	bytes     bool // count bytes, not lines
	fromStart bool // +N: from the N-th on
	follow    bool
	retry     bool // a file may be missing at first
}

func tail(ctx context.Context, e *env, args []Word) (int, error) {
	opts, operands, err := tailOptions.parse("tail", args, obsoleteTail)
	if err != nil {
		return 2, err
	}
	spec := tailSpec{count: 10}
	headers := headerStyle{many: len(operands) > 1 || patterns(operands)}
	for _, o := range opts {
		switch o.name {
		case "n", "c":
			spec.bytes = o.name == "c"
			spec.fromStart = strings.HasPrefix(o.value, "+")
			if spec.count, err = quantity("tail", strings.TrimLeft(o.value, "+-")); err != nil {
				return 2, err
			}
		case "f":
			spec.follow = true
		case "F":
			spec.follow, spec.retry = true, true
		case "q":
			headers.never, headers.always = true, false
		case "v":
			headers.always, headers.never = true, false
		}
	}
	if !spec.bytes && !spec.fromStart {
		spec.count = e.clampLines(spec.count)
	}
	names, err := e.expand(operands)
	if err != nil {
		return 2, err
	}
	if spec.follow && names[0] != "-" {
		return e.tailFollow(ctx, spec, names, &headers)
	}
	code := 0
	for _, name := range names {
		if err := e.tailOne(ctx, spec, name, &headers); err != nil {
			if fatal(ctx, err) {
				return 1, err
			}
			e.errf("cannot open '%s' for reading: %s", name, reason(err))
			code = 1
		}
	}
	return code, nil
}

func (e *env) tailOne(ctx context.Context, spec tailSpec, name string, headers *headerStyle) error {
	if name == "-" {
		if err := headers.write(e, name); err != nil {
			return err
		}
		return e.tailStream(spec)
	}
	f, err := e.service.open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if err := headers.write(e, name); err != nil {
		return err
	}
	from, err := spec.offset(ctx, f, fi.Size())
	if err != nil {
		return err
	}
	part := io.NopCloser(io.NewSectionReader(f, from, fi.Size()-from))
	return e.copyTo(&metered{ctx: ctx, ReadCloser: part, meter: e.meter})
}

// offset returns where the tail of a file begins. Lines from the end are found by reading backwards.
func (s tailSpec) offset(ctx context.Context, f io.ReaderAt, size int64) (int64, error) {
	switch {
	case s.bytes && s.fromStart:
		return min(max(s.count-1, 0), size), nil
	case s.bytes:
		return max(size-s.count, 0), nil
	case s.fromStart:
		return lineFromStart(ctx, f, size, max(s.count-1, 0))
	default:
		return lineFromEnd(ctx, f, size, s.count)
	}
}

func lineFromStart(ctx context.Context, f io.ReaderAt, size, skip int64) (int64, error) {
	buf := make([]byte, blockSize)
	for off := int64(0); off < size && skip > 0; {
		if err := context.Cause(ctx); err != nil {
			return 0, err
		}
		n, err := f.ReadAt(buf[:min(blockSize, size-off)], off)
		if n == 0 && err != nil {
			return 0, err
		}
		block := buf[:n]
		if lines := int64(countLines(block)); lines < skip {
			skip -= lines
			off += int64(n)
			continue
		}
		for ; skip > 0; skip-- {
			i := bytes.IndexByte(block, '\n') + 1
			off += int64(i)
			block = block[i:]
		}
		return off, nil
	}
	if skip > 0 {
		return size, nil
	}
	return 0, nil
}

func lineFromEnd(ctx context.Context, f io.ReaderAt, size, count int64) (int64, error) {
	if count == 0 {
		return size, nil
	}
	buf := make([]byte, 64<<10)
	// The newline at the very end closes the last line and begins none.
	for end, skip := size, true; end > 0; {
		if err := context.Cause(ctx); err != nil {
			return 0, err
		}
		start := max(end-int64(len(buf)), 0)
		block := buf[:end-start]
		if n, err := f.ReadAt(block, start); n < len(block) {
			return 0, fmt.Errorf("reading backwards: %w", errors.Join(err, io.ErrUnexpectedEOF))
		}
		tail := block
		if skip {
			tail, skip = block[:len(block)-1], false
			if block[len(block)-1] != '\n' {
				tail = block
			}
		}
		if lines := int64(countLines(tail)); lines < count {
			count -= lines
			end = start
			continue
		}
		for {
			i := bytes.LastIndexByte(tail, '\n')
			if count--; count == 0 {
				return start + int64(i) + 1, nil
			}
			tail = tail[:i]
		}
	}
	return 0, nil
}

// tailStream is tail of what cannot be read backwards.
func (e *env) tailStream(spec tailSpec) error {
	if spec.fromStart {
		skip := max(spec.count-1, 0)
		if spec.bytes {
			if _, err := io.CopyN(io.Discard, e.stdin, skip); err != nil {
				if errors.Is(err, io.EOF) {
					return nil
				}
				return err
			}
			return e.copyTo(e.stdin)
		}
		return eachLine(e.stdin, e.out.Flush, func(line []byte) error {
			if skip > 0 {
				skip--
				return nil
			}
			_, err := e.out.Write(line)
			return err
		})
	}
	if spec.bytes {
		return e.lastBytes(spec.count)
	}
	var held [][]byte
	var size int64
	err := eachLine(e.stdin, e.out.Flush, func(line []byte) error {
		if spec.count == 0 {
			return nil
		}
		if int64(len(held)) == spec.count {
			size -= int64(len(held[0]))
			held = held[1:]
		}
		size += int64(len(line))
		held = append(held, bytes.Clone(line))
		return e.holds(size)
	})
	for _, line := range held {
		if err != nil {
			break
		}
		_, err = e.out.Write(line)
	}
	return err
}

func (e *env) lastBytes(n int64) error {
	if err := e.holds(n); err != nil {
		return err
	}
	var held []byte
	buf := make([]byte, blockSize)
	for {
		k, err := e.stdin.Read(buf)
		held = append(held, buf[:k]...)
		if over := int64(len(held)) - n; over > 0 {
			held = append(held[:0], held[over:]...)
		}
		if errors.Is(err, io.EOF) {
			_, err = e.out.Write(held)
			return err
		}
		if err != nil {
			return err
		}
	}
}

// tailFollow follows all names at once; their output is told apart by headers.
func (e *env) tailFollow(ctx context.Context, spec tailSpec, names []string, headers *headerStyle) (int, error) {
	var mu sync.Mutex // one file's output at a time
	last := ""
	group, ctx := errgroup.WithContext(ctx)
	// Whatever ends the command, what has begun to follow ends with it.
	give := func(err error) (int, error) {
		group.Go(func() error { return err })
		return 1, group.Wait()
	}
	code := 0
	for _, name := range names {
		w, err := e.service.watches.follow(name)
		if err != nil {
			return give(err)
		}
		f, err := newFollower(w, func(r io.ReaderAt, size int64) (int64, error) {
			from, err := spec.offset(ctx, r, size)
			if max := e.limits.MaxRead; err == nil && max > 0 && size-from > max {
				err = readLimit(max)
			}
			return from, err
		})
		if err == nil && f.gen == nil {
			_, err = e.service.jail.StatFile(name)
			if spec.retry && errors.Is(err, fs.ErrNotExist) {
				e.errf("cannot open '%s' for reading: %s", name, reason(err))
				err = nil
			} else if err == nil {
				err = &fs.PathError{Op: "open", Path: name, Err: errors.New("not a regular file")}
			}
		}
		if err != nil {
			f.close()
			if fatal(ctx, err) {
				return give(err)
			}
			e.errf("cannot open '%s' for reading: %s", name, reason(err))
			code = 1
			continue
		}
		emit := func(p []byte) error {
			mu.Lock()
			defer mu.Unlock()
			if last != name {
				last = name
				if err := headers.write(e, name); err != nil {
					return err
				}
			}
			e.meter.read.Add(int64(len(p))) // counted and not limited: a follow may go on for days
			if _, err := e.out.Write(p); err != nil {
				return err
			}
			return e.out.Flush()
		}
		note := func(text string) {
			if text == noteTruncated {
				e.errf("%s: %s", name, text)
			} else {
				e.errf("'%s' %s", name, text)
			}
		}
		follow := func() error {
			defer f.close()
			return guard(func() error { return f.run(ctx, e.service.buffers, e.limits.Idle, emit, note) })
		}
		if len(names) == 1 {
			return 1, follow()
		}
		group.Go(follow)
	}
	if err := group.Wait(); err != nil && !errors.Is(err, os.ErrClosed) {
		return 1, err
	}
	if code != 0 {
		e.errf("no files remaining")
	}
	return code, nil
}
