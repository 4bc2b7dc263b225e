package logs

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
)

func countLines(p []byte) int { return bytes.Count(p, []byte{'\n'}) }

// eachFile opens the operands one after another and calls f with each. A file that cannot be read is told and makes
// the exit code 1; the others go on.
func (e *env) eachFile(ctx context.Context, operands []Word, f func(name string, r io.Reader) error) (int, error) {
	names, err := e.expand(operands)
	if err != nil {
		return 2, err
	}
	code := 0
	for _, name := range names {
		r, err := e.open(ctx, name)
		if err == nil {
			err = f(name, r)
			if cerr := r.Close(); err == nil {
				err = cerr
			}
		}
		if err != nil {
			if fatal(ctx, err) {
				return 1, err
			}
			e.errf("%s: %s", name, reason(err))
			code = 1
		}
	}
	return code, nil
}

// copyTo relays r. It flushes after each read, so that a follow upstream is not held back, and keeps the beginning of
// a line for the next flush.
func (e *env) copyTo(r io.Reader) error {
	if err := e.out.Flush(); err != nil {
		return err
	}
	buf, held := make([]byte, firstBlock), 0
	for {
		n, err := r.Read(buf[held:])
		n += held
		held = 0
		if whole := bytes.LastIndexByte(buf[:n], '\n') + 1; whole > 0 {
			held = n - whole
		}
		if n > held {
			if _, werr := e.out.Write(buf[:n-held]); werr != nil {
				return werr
			}
			if ferr := e.out.Flush(); ferr != nil {
				return ferr
			}
		}
		rest := buf[n-held : n]
		if n == len(buf) && n < blockSize {
			buf = make([]byte, 2*n)
		}
		copy(buf, rest)
		if err == nil {
			continue
		}
		if _, werr := e.out.Write(buf[:held]); werr != nil {
			return werr
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	}
}

var catOptions = optionTable{
	short: "AbeEnstTuv",
	long: map[string]string{
		"show-all": "A", "number-nonblank": "b", "show-ends": "E", "number": "n", "squeeze-blank": "s",
		"show-tabs": "T", "show-nonprinting": "v",
	},
}

type catStyle struct {
	number, nonblank, squeeze, ends, tabs, visible bool

	line   int
	blanks int
}

func cat(ctx context.Context, e *env, args []Word) (int, error) {
	opts, operands, err := catOptions.parse("cat", args, nil)
	if err != nil {
		return 2, err
	}
	var s catStyle
	plain := true
	for _, o := range opts {
		plain = plain && o.name == "u"
		switch o.name {
		case "A":
			s.visible, s.ends, s.tabs = true, true, true
		case "b":
			s.nonblank = true
		case "e":
			s.visible, s.ends = true, true
		case "E":
			s.ends = true
		case "n":
			s.number = true
		case "s":
			s.squeeze = true
		case "t":
			s.visible, s.tabs = true, true
		case "T":
			s.tabs = true
		case "v":
			s.visible = true
		}
	}
	return e.eachFile(ctx, operands, func(_ string, r io.Reader) error {
		if plain {
			return e.copyTo(r)
		}
		return eachLine(r, e.out.Flush, func(line []byte) error { return s.write(e, line) })
	})
}

func (s *catStyle) write(e *env, line []byte) error {
	body := chomp(line)
	if len(body) == 0 && len(line) > 0 {
		if s.blanks++; s.squeeze && s.blanks > 1 {
			return nil
		}
	} else {
		s.blanks = 0
	}
	if s.nonblank && len(body) > 0 || s.number && !s.nonblank {
		s.line++
		fmt.Fprintf(e.out, "%6d\t", s.line)
	}
	for _, c := range body {
		s.char(e, c)
	}
	if len(body) < len(line) {
		if s.ends {
			_ = e.out.WriteByte('$')
		}
		return e.out.WriteByte('\n')
	}
	return nil
}

// char writes one byte in the ^ and M- notation where asked for. The writer keeps its first error.
func (s *catStyle) char(e *env, c byte) {
	switch {
	case c == '\t':
		if s.tabs {
			_, _ = e.out.WriteString("^I")
			return
		}
	case s.visible:
		if c >= 128 {
			_, _ = e.out.WriteString("M-")
			c -= 128
		}
		if c < 32 || c == 127 {
			_ = e.out.WriteByte('^')
			c ^= 64
		}
	}
	_ = e.out.WriteByte(c)
}

// zcat is cat of files that may be compressed.
func zcat(ctx context.Context, e *env, args []Word) (int, error) {
	_, operands, err := optionTable{short: "f"}.parse("zcat", args, nil)
	if err != nil {
		return 2, err
	}
	return e.eachFile(ctx, operands, func(_ string, r io.Reader) error {
		d, err := decompress(r)
		if err != nil {
			return err
		}
		defer d.Close()
		return e.copyTo(d)
	})
}

// decompress reads gzip and zstd by their first bytes, and anything else as it is.
func decompress(r io.Reader) (io.ReadCloser, error) {
	magic := make([]byte, 4)
	n, err := io.ReadFull(r, magic)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	all := io.MultiReader(bytes.NewReader(magic[:n]), r)
	switch {
	case bytes.HasPrefix(magic[:n], []byte{0x1f, 0x8b}):
		return gzip.NewReader(all)
	case bytes.HasPrefix(magic[:n], []byte{0x28, 0xb5, 0x2f, 0xfd}):
		d, err := zstd.NewReader(all, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(64<<20))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	}
	return io.NopCloser(all), nil
}

var wcOptions = optionTable{short: "clmwL", long: map[string]string{"bytes": "c", "lines": "l", "words": "w", "chars": "m"}}

// wc counts lines, words, characters and bytes.
func wc(ctx context.Context, e *env, args []Word) (int, error) {
	opts, operands, err := wcOptions.parse("wc", args, nil)
	if err != nil {
		return 2, err
	}
	show := map[string]bool{}
	for _, o := range opts {
		show[o.name] = true
	}
	if len(opts) == 0 {
		show = map[string]bool{"l": true, "w": true, "c": true}
	}
	type counts struct {
		name                       string
		lines, words, chars, bytes int64
	}
	var rows []counts
	var total counts
	code, err := e.eachFile(ctx, operands, func(name string, r io.Reader) error {
		c := counts{name: name}
		inWord := false
		buf := make([]byte, blockSize)
		for {
			n, err := r.Read(buf)
			c.bytes += int64(n)
			c.lines += int64(countLines(buf[:n]))
			if show["w"] || show["m"] {
				for _, b := range buf[:n] {
					space := b == ' ' || b >= '\t' && b <= '\r'
					if !space && !inWord {
						c.words++
					}
					inWord = !space
					if b&0xc0 != 0x80 {
						c.chars++
					}
				}
			}
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
		}
		rows = append(rows, c)
		total.lines, total.words, total.chars, total.bytes = total.lines+c.lines, total.words+c.words, total.chars+c.chars, total.bytes+c.bytes
		return nil
	})
	if err != nil {
		return code, err
	}
	if len(rows) > 1 {
		total.name = "total"
		rows = append(rows, total)
	}
	width := 1
	if len(show) > 1 || len(rows) > 1 {
		width = len(strconv.FormatInt(total.bytes, 10))
		if len(operands) == 0 {
			width = 7
		}
	}
	for _, c := range rows {
		var cells []string
		for _, col := range []struct {
			name string
			n    int64
		}{{"l", c.lines}, {"w", c.words}, {"m", c.chars}, {"c", c.bytes}} {
			if show[col.name] {
				cells = append(cells, fmt.Sprintf("%*d", width, col.n))
			}
		}
		if len(operands) > 0 {
			cells = append(cells, c.name)
		}
		fmt.Fprintln(e.out, strings.Join(cells, " "))
	}
	return code, nil
}
