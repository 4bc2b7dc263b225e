package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

var headOptions = optionTable{
	short: "n:c:qv",
	long:  map[string]string{"lines": "n=", "bytes": "c=", "quiet": "q", "silent": "q", "verbose": "v"},
}

func head(ctx context.Context, e *env, args []Word) (int, error) {
	opts, operands, err := headOptions.parse("head", args, func(digits string) []option {
		return []option{{"n", digits}}
	})
	if err != nil {
		return 2, err
	}
	count, bytesMode, fromEnd := int64(10), false, false
	headers := headerStyle{many: len(operands) > 1 || patterns(operands)}
	for _, o := range opts {
		switch o.name {
		case "n", "c":
			value := o.value
			fromEnd = strings.HasPrefix(value, "-")
			if count, err = quantity("head", strings.TrimPrefix(value, "-")); err != nil {
				return 2, err
			}
			bytesMode = o.name == "c"
		case "q":
			headers.never, headers.always = true, false
		case "v":
			headers.always, headers.never = true, false
		}
	}
	if !bytesMode && !fromEnd {
		count = e.clampLines(count)
	}
	return e.eachFile(ctx, operands, func(name string, r io.Reader) error {
		if err := headers.write(e, name); err != nil {
			return err
		}
		switch {
		case bytesMode && fromEnd:
			return e.allButLastBytes(r, count)
		case bytesMode:
			return e.copyTo(io.LimitReader(r, count))
		case fromEnd:
			return e.allButLastLines(r, count)
		default:
			return e.firstLines(r, count)
		}
	})
}

// clampLines applies app.logs.max-line.
func (e *env) clampLines(n int64) int64 {
	limit := int64(e.limits.MaxLines)
	if limit <= 0 || n <= limit {
		return n
	}
	e.errf("%v", &LimitError{Key: "app.logs.max-line", Limit: fmt.Sprintf("%d lines", limit)})
	return limit
}

func (e *env) firstLines(r io.Reader, n int64) error {
	if n == 0 {
		return nil
	}
	b := newBlockReader(r)
	for {
		block, err := b.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if lines := int64(countLines(block)); lines < n {
			n -= lines
		} else {
			end := 0
			for ; n > 0; n-- {
				end += bytes.IndexByte(block[end:], '\n') + 1
			}
			block = block[:end]
		}
		if _, err := e.out.Write(block); err != nil {
			return err
		}
		if n == 0 {
			return nil
		}
		if err := e.out.Flush(); err != nil {
			return err
		}
	}
}

// allButLastLines holds n lines back. What it holds is bounded as sort's memory is.
func (e *env) allButLastLines(r io.Reader, n int64) error {
	var held [][]byte
	var size int64
	return eachLine(r, e.out.Flush, func(line []byte) error {
		if n == 0 {
			_, err := e.out.Write(line)
			return err
		}
		if int64(len(held)) == n {
			if _, err := e.out.Write(held[0]); err != nil {
				return err
			}
			size -= int64(len(held[0]))
			held = held[1:]
		}
		size += int64(len(line))
		if err := e.holds(size); err != nil {
			return err
		}
		held = append(held, bytes.Clone(line))
		return nil
	})
}

func (e *env) allButLastBytes(r io.Reader, n int64) error {
	if err := e.holds(n); err != nil {
		return err
	}
	held := make([]byte, 0, min(n, blockSize))
	buf := make([]byte, blockSize)
	for {
		k, err := r.Read(buf)
		held = append(held, buf[:k]...)
		if over := int64(len(held)) - n; over > 0 {
			if _, werr := e.out.Write(held[:over]); werr != nil {
				return werr
			}
			held = append(held[:0], held[over:]...)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// holds checks what a stage keeps in memory.
func (e *env) holds(size int64) error {
	if limit := e.limits.SortMemory; limit > 0 && size > limit {
		return &LimitError{Key: keySortMemory, Limit: fmt.Sprintf("%d MB", limit>>20)}
	}
	return nil
}

// A headerStyle decides about the ==> name <== lines of head and tail.
type headerStyle struct {
	many, always, never bool
	written             bool
}

func (h *headerStyle) write(e *env, name string) error {
	if h.never || !h.many && !h.always {
		return nil
	}
	lead := ""
	if h.written {
		lead = "\n"
	}
	h.written = true
	if name == "-" {
		name = "standard input"
	}
	_, err := fmt.Fprintf(e.out, "%s==> %s <==\n", lead, name)
	return err
}

func patterns(words []Word) bool {
	for _, w := range words {
		if w.Pattern != "" {
			return true
		}
	}
	return false
}

// quantity reads a count with the suffixes of coreutils.
func quantity(cmd, text string) (int64, error) {
	digits := strings.TrimRight(text, "bkKMGTPEBi")
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 {
		return 0, &Refusal{Reason: fmt.Sprintf("%s: %q is no number", cmd, text)}
	}
	unit, ok := map[string]int64{
		"": 1, "b": 512, "kB": 1000, "K": 1 << 10, "k": 1 << 10, "KiB": 1 << 10, "MB": 1e6, "M": 1 << 20, "MiB": 1 << 20,
		"GB": 1e9, "G": 1 << 30, "GiB": 1 << 30,
	}[text[len(digits):]]
	if !ok || n > (1<<62)/unit {
		return 0, &Refusal{Reason: fmt.Sprintf("%s: %q is no number", cmd, text)}
	}
	return n * unit, nil
}
