package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
)

var grepOptions = optionTable{
	short: "ivcnlLowxEFGPae:m:A:B:C:HhqsTbyu",
	long: map[string]string{
		"ignore-case": "i", "invert-match": "v", "count": "c", "line-number": "n", "files-with-matches": "l",
		"files-without-match": "L", "only-matching": "o", "word-regexp": "w", "line-regexp": "x", "extended-regexp": "E",
		"fixed-strings": "F", "basic-regexp": "G", "perl-regexp": "P", "text": "a", "regexp": "e=", "max-count": "m=",
		"after-context": "A=", "before-context": "B=", "context": "C=", "with-filename": "H", "no-filename": "h",
		"quiet": "q", "silent": "q", "no-messages": "s", "byte-offset": "b", "line-buffered": "u", "color": "u?", "colour": "u?",
	},
}

type grepper struct {
	m                              *matcher
	invert, count, number, offset  bool
	list, listWithout, only, quiet bool
	names, silent                  bool
	max                            int64 // -1: no limit
	before, after                  int
	separated                      bool // lines were printed, so that the next group begins with --
}

func grep(ctx context.Context, e *env, args []Word) (int, error) {
	return runGrep(ctx, e, args, basic, false)
}

func egrep(ctx context.Context, e *env, args []Word) (int, error) {
	return runGrep(ctx, e, args, extended, false)
}

func fgrep(ctx context.Context, e *env, args []Word) (int, error) {
	return runGrep(ctx, e, args, fixed, false)
}

func zgrep(ctx context.Context, e *env, args []Word) (int, error) {
	return runGrep(ctx, e, args, basic, true)
}

func runGrep(ctx context.Context, e *env, args []Word, d dialect, compressed bool) (int, error) {
	g, operands, err := parseGrep(e.name, args, d)
	if err != nil {
		return 2, err
	}
	names, err := e.expand(operands)
	if err != nil {
		return 2, err
	}
	selected, code := int64(0), 0
	if len(names) > 1 && g.before == 0 && g.after == 0 && !slices.Contains(names, "-") {
		selected, code, err = g.many(ctx, e, names, compressed)
	} else {
		code, err = e.eachName(ctx, names, g.silent, func(name string, r io.Reader) error {
			n, err := g.plain(e, name, r, compressed)
			selected += n
			return err
		})
	}
	switch {
	case errors.Is(err, errQuiet):
		return 0, nil
	case err != nil:
		return 2, err
	case code != 0:
		return 2, nil
	case selected == 0:
		return 1, nil
	}
	return 0, nil
}

// plain searches one file that may be compressed.
func (g *grepper) plain(e *env, name string, r io.Reader, compressed bool) (int64, error) {
	if compressed {
		d, err := decompress(r)
		if err != nil {
			return 0, err
		}
		defer d.Close()
		r = d
	}
	return g.file(e, name, r)
}

var errQuiet = errors.New("one match is enough")

func parseGrep(cmd string, args []Word, d dialect) (*grepper, []Word, error) {
	opts, operands, err := grepOptions.parse(cmd, args, func(digits string) []option { return []option{{"C", digits}} })
	if err != nil {
		return nil, nil, err
	}
	g := &grepper{max: -1}
	mo := matchOptions{dialect: d}
	var patterns []string
	var withName, withoutName bool
	for _, o := range opts {
		var n int64
		if o.name == "m" || o.name == "A" || o.name == "B" || o.name == "C" {
			if n, err = quantity(cmd, o.value); err != nil {
				return nil, nil, err
			}
		}
		switch o.name {
		case "i", "y":
			mo.fold = true
		case "v":
			g.invert = true
		case "c":
			g.count = true
		case "n":
			g.number = true
		case "b":
			g.offset = true
		case "l":
			g.list = true
		case "L":
			g.listWithout = true
		case "o":
			g.only = true
		case "q":
			g.quiet = true
		case "s":
			g.silent = true
		case "w":
			mo.word = true
		case "x":
			mo.line = true
		case "E":
			mo.dialect = extended
		case "F":
			mo.dialect = fixed
		case "G":
			mo.dialect = basic
		case "P":
			mo.dialect = perl
		case "e":
			patterns = append(patterns, o.value)
		case "m":
			g.max = n
		case "A":
			g.after = int(min(n, 1<<20))
		case "B":
			g.before = int(min(n, 1<<20))
		case "C":
			g.before, g.after = int(min(n, 1<<20)), int(min(n, 1<<20))
		case "H":
			withName, withoutName = true, false
		case "h":
			withName, withoutName = false, true
		}
	}
	if patterns == nil {
		if len(operands) == 0 {
			return nil, nil, &Refusal{Reason: cmd + ": no pattern given"}
		}
		patterns, operands = []string{operands[0].Text}, operands[1:]
	}
	if g.m, err = newMatcher(patterns, mo); err != nil {
		return nil, nil, &Refusal{Reason: cmd + ": " + err.Error()}
	}
	g.names = withName || !withoutName && (len(operands) > 1 || namesMany(operands))
	return g, operands, nil
}

func namesMany(operands []Word) bool { return len(operands) == 1 && operands[0].Pattern != "" }

// eachName is eachFile for names that are expanded already.
func (e *env) eachName(ctx context.Context, names []string, silent bool, f func(name string, r io.Reader) error) (int, error) {
	words := make([]Word, len(names))
	for i, n := range names {
		words[i] = Word{Text: n}
	}
	if !silent {
		return e.eachFile(ctx, words, f)
	}
	quiet := *e
	quiet.sink.Err = func(string) {}
	return quiet.eachFile(ctx, words, f)
}

// file searches one file and returns how many lines it selected.
func (g *grepper) file(e *env, name string, r io.Reader) (int64, error) {
	shown := name
	if name == "-" {
		shown = "(standard input)"
	}
	s := &search{grepper: g, e: e, name: shown}
	if g.names {
		s.prefix = shown
	}
	var err error
	if g.before > 0 || g.after > 0 {
		err = s.withContext(r)
	} else {
		err = s.blocks(r)
	}
	if errors.Is(err, errEnoughLines) {
		err = nil
	}
	if err != nil {
		return s.selected, err
	}
	switch {
	case g.quiet:
	case g.list:
		if s.selected > 0 {
			fmt.Fprintln(e.out, shown)
		}
	case g.listWithout:
		if s.selected == 0 {
			fmt.Fprintln(e.out, shown)
		}
	case g.count:
		if s.prefix != "" {
			fmt.Fprintf(e.out, "%s:", s.prefix)
		}
		fmt.Fprintln(e.out, s.selected)
	}
	return s.selected, nil
}

var errEnoughLines = errors.New("enough lines selected")

// A search is the state of one file.
type search struct {
	*grepper
	e        *env
	name     string
	prefix   string
	selected int64
	line     int64 // lines before the current block or line
	pos      int64 // bytes before the current block or line
	digits   [20]byte
}

// blocks searches without context: only selected lines are looked at one by one.
func (s *search) blocks(r io.Reader) error {
	if s.max == 0 {
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
		if err := s.block(block); err != nil {
			return err
		}
		if err := s.e.out.Flush(); err != nil {
			return err
		}
	}
}

func (s *search) block(block []byte) error {
	counted, counting := 0, s.number // lines of the block before counted are in s.line
	pos := 0
	for pos < len(block) {
		start, end, ok := s.m.next(block, pos)
		if s.invert {
			stop := start
			if !ok {
				stop, end = len(block), len(block)
			}
			for pos < stop {
				to := lineEnd(block, pos)
				if err := s.take(block, pos, to, &counted, counting); err != nil {
					return err
				}
				pos = to
			}
			pos = end
			continue
		}
		if !ok {
			break
		}
		if err := s.take(block, start, end, &counted, counting); err != nil {
			return err
		}
		pos = end
	}
	if counting {
		s.line += int64(countLines(block[counted:]))
	}
	s.pos += int64(len(block))
	return nil
}

func (s *search) take(block []byte, start, end int, counted *int, counting bool) error {
	if counting {
		s.line += int64(countLines(block[*counted:start]))
		*counted = start
	}
	s.selected++
	if err := s.enough(); err != nil {
		return err
	}
	if err := s.print(block[start:end], s.line+1, s.pos+int64(start), ':'); err != nil {
		return err
	}
	if s.max > 0 && s.selected >= s.max {
		return errEnoughLines
	}
	return nil
}

// enough ends the search early where one match says everything.
func (s *search) enough() error {
	if s.quiet {
		return errQuiet
	}
	if s.list || s.listWithout {
		return errEnoughLines
	}
	return nil
}

func (s *search) print(line []byte, number, offset int64, sep byte) error {
	if s.count {
		return nil
	}
	body := chomp(line)
	if !s.only {
		s.head(number, offset, sep)
		_, _ = s.e.out.Write(body)
		return s.e.out.WriteByte('\n')
	}
	if s.invert {
		return nil
	}
	for at := 0; at <= len(body); {
		from, to, ok := s.m.find(body, at)
		if !ok {
			return nil
		}
		if to == from {
			at = to + 1
			continue
		}
		s.head(number, offset+int64(from), sep)
		_, _ = s.e.out.Write(body[from:to])
		if err := s.e.out.WriteByte('\n'); err != nil {
			return err
		}
		at = to
	}
	return nil
}

// head writes what stands before a line. The writer keeps its first error for the next call.
func (s *search) head(number, offset int64, sep byte) {
	if s.prefix != "" {
		_, _ = s.e.out.WriteString(s.prefix)
		_ = s.e.out.WriteByte(sep)
	}
	if s.number {
		_, _ = s.e.out.Write(strconv.AppendInt(s.digits[:0], number, 10))
		_ = s.e.out.WriteByte(sep)
	}
	if s.offset {
		_, _ = s.e.out.Write(strconv.AppendInt(s.digits[:0], offset, 10))
		_ = s.e.out.WriteByte(sep)
	}
}

type heldLine struct {
	text   []byte
	number int64
	offset int64
}

// withContext searches line by line and keeps the lines before.
func (s *search) withContext(r io.Reader) error {
	if s.max == 0 {
		return nil
	}
	var held []heldLine
	var size int64
	follow, printed := 0, int64(-1) // lines still to print after a match; number of the last printed line
	separate := func(number int64) {
		if s.separated && (printed < 0 || number > printed+1) && !s.count && !s.only {
			_, _ = s.e.out.WriteString("--\n")
		}
		printed, s.separated = number, true
	}
	done := false
	err := eachLine(r, s.e.out.Flush, func(line []byte) error {
		s.line++
		offset := s.pos
		s.pos += int64(len(line))
		if !done && s.m.matches(chomp(line)) != s.invert {
			s.selected++
			if err := s.enough(); err != nil {
				return err
			}
			for _, h := range held {
				separate(h.number)
				if !s.only {
					if err := s.print(h.text, h.number, h.offset, '-'); err != nil {
						return err
					}
				}
			}
			held, size = held[:0], 0
			separate(s.line)
			follow = s.after
			done = s.max > 0 && s.selected >= s.max
			if err := s.print(line, s.line, offset, ':'); err != nil {
				return err
			}
			if done && follow == 0 {
				return errEnoughLines
			}
			return nil
		}
		if follow > 0 {
			follow--
			printed = s.line
			if !s.only {
				if err := s.print(line, s.line, offset, '-'); err != nil {
					return err
				}
			}
			if done && follow == 0 {
				return errEnoughLines
			}
			return nil
		}
		if s.before == 0 {
			return nil
		}
		if len(held) == s.before {
			size -= int64(len(held[0].text))
			held = append(held[:0], held[1:]...)
		}
		size += int64(len(line))
		held = append(held, heldLine{bytes.Clone(line), s.line, offset})
		return s.e.holds(size)
	})
	return err
}
