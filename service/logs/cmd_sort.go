package logs

import (
	"bufio"
	"bytes"
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
)

var sortOptions = optionTable{
	short: "bdfgGhinrsuk:t:VMz",
	long: map[string]string{
		"ignore-leading-blanks": "b", "dictionary-order": "d", "ignore-case": "f", "general-numeric-sort": "g", "human-numeric-sort": "h",
		"ignore-nonprinting": "i", "numeric-sort": "n", "reverse": "r", "stable": "s", "unique": "u", "key": "k=",
		"field-separator": "t=", "month-sort": "M",
	},
}

// A sortKey is what one -k compares, or the whole line.
type sortKey struct {
	startField, startChar int // 1-based; startField 0 is the whole line
	endField, endChar     int // 0: to the end of the line, of the field
	startBlanks           bool
	endBlanks             bool
	order                 byte // 0 bytes, n, g, h, M
	reverse, fold, dict   bool
	printable             bool
	given                 bool // has options of its own
}

type sorter struct {
	e              *env
	keys           []sortKey
	separator      int // -1: runs of blanks
	unique, stable bool
	reverse        bool // of the last resort
	lines          [][]byte
	arena          []byte
	size           int64
	spilled        int64
	runs           []*os.File
}

// sortLines is sort: in memory as long as that holds, else in sorted runs on disk that are merged.
func sortLines(ctx context.Context, e *env, args []Word) (int, error) {
	s, operands, err := parseSort(args)
	if err != nil {
		return 2, err
	}
	s.e = e
	defer s.discard()
	code, err := e.eachFile(ctx, operands, func(_ string, r io.Reader) error {
		return eachLine(r, func() error { return context.Cause(ctx) }, s.add)
	})
	if err != nil {
		return 2, err
	}
	if code != 0 {
		return 2, nil // as sort, which prints nothing then
	}
	return 0, s.finish(ctx)
}

func parseSort(args []Word) (*sorter, []Word, error) {
	opts, operands, err := sortOptions.parse("sort", args, nil)
	if err != nil {
		return nil, nil, err
	}
	s := &sorter{separator: -1}
	var global sortKey
	for _, o := range opts {
		switch o.name {
		case "k":
			k, err := parseKey(o.value)
			if err != nil {
				return nil, nil, err
			}
			s.keys = append(s.keys, k)
		case "t":
			sep := o.value
			if sep == `\0` {
				sep = "\x00"
			}
			if len(sep) != 1 {
				return nil, nil, &Refusal{Reason: fmt.Sprintf("sort: the separator %q is not one byte", o.value)}
			}
			s.separator = int(sep[0])
		case "u":
			s.unique = true
		case "s":
			s.stable = true
		default:
			if !global.option(o.name[0], true, true) {
				return nil, nil, &Refusal{Reason: "sort: option -" + o.name + " is not allowed"}
			}
		}
	}
	s.reverse = global.reverse
	for i := range s.keys {
		if k := &s.keys[i]; !k.given {
			k.order, k.reverse, k.fold, k.dict, k.printable = global.order, global.reverse, global.fold, global.dict, global.printable
			k.startBlanks, k.endBlanks = global.startBlanks, global.endBlanks
		}
	}
	if s.keys == nil && (global.order != 0 || global.fold || global.dict || global.printable || global.startBlanks) {
		s.keys = []sortKey{global}
	}
	return s, operands, nil
}

// option applies one ordering letter.
func (k *sortKey) option(c byte, start, end bool) bool {
	switch c {
	case 'b':
		k.startBlanks, k.endBlanks = k.startBlanks || start, k.endBlanks || end
	case 'd':
		k.dict = true
	case 'f':
		k.fold = true
	case 'i':
		k.printable = true
	case 'n', 'g', 'h', 'M':
		k.order = c
	case 'r':
		k.reverse = true
	default:
		return false
	}
	k.given = true
	return true
}

// parseKey reads F[.C][OPTS][,F[.C][OPTS]].
func parseKey(text string) (sortKey, error) {
	bad := &Refusal{Reason: fmt.Sprintf("sort: %q is no key", text)}
	var k sortKey
	from, to, two := strings.Cut(text, ",")
	position := func(s string, start bool) (field, char int, err error) {
		letters := strings.TrimLeft(s, "0123456789.")
		fieldText, charText, hasChar := strings.Cut(strings.TrimSuffix(s, letters), ".")
		if field, err = strconv.Atoi(fieldText); err != nil || field < 1 {
			return 0, 0, bad
		}
		if hasChar {
			if char, err = strconv.Atoi(charText); err != nil || char < 0 || (start && char == 0) {
				return 0, 0, bad
			}
		}
		for i := range len(letters) {
			if !k.option(letters[i], start, !start) {
				return 0, 0, bad
			}
		}
		return field, char, nil
	}
	var err error
	if k.startField, k.startChar, err = position(from, true); err != nil {
		return k, err
	}
	k.startChar = max(k.startChar, 1)
	if two {
		k.endField, k.endChar, err = position(to, false)
	}
	return k, err
}

// extract returns the part of the line that the key compares.
func (s *sorter) extract(k *sortKey, line []byte) []byte {
	if k.startField == 0 {
		if k.startBlanks {
			return bytes.TrimLeft(line, " \t")
		}
		return line
	}
	start, _ := s.field(line, k.startField)
	if k.startBlanks {
		for start < len(line) && blank(line[start]) {
			start++
		}
	}
	start = min(start+k.startChar-1, len(line))
	end := len(line)
	if k.endField > 0 {
		fieldStart, fieldEnd := s.field(line, k.endField)
		end = fieldEnd
		if k.endChar > 0 {
			if k.endBlanks {
				for fieldStart < len(line) && blank(line[fieldStart]) {
					fieldStart++
				}
			}
			end = min(fieldStart+k.endChar, len(line))
		}
	}
	if end < start {
		return nil
	}
	return line[start:end]
}

func blank(c byte) bool { return c == ' ' || c == '\t' }

// field returns the bounds of the n-th field. Without a separator a field begins with the blanks before it.
func (s *sorter) field(line []byte, n int) (start, end int) {
	for i := 1; ; i++ {
		if s.separator >= 0 {
			if j := bytes.IndexByte(line[start:], byte(s.separator)); j >= 0 {
				end = start + j
			} else {
				end = len(line)
			}
		} else {
			end = start
			for end < len(line) && blank(line[end]) {
				end++
			}
			for end < len(line) && !blank(line[end]) {
				end++
			}
		}
		if i == n || end == len(line) {
			if i < n {
				return len(line), len(line)
			}
			return start, end
		}
		start = end
		if s.separator >= 0 {
			start++
		}
	}
}

func (s *sorter) compareKeys(a, b []byte) int {
	for i := range s.keys {
		k := &s.keys[i]
		if c := k.compare(s.extract(k, a), s.extract(k, b)); c != 0 {
			return c
		}
	}
	return 0
}

// compare orders two lines; without unique and stable, equal keys are told apart by the whole line.
func (s *sorter) compare(a, b []byte) int {
	if len(s.keys) > 0 {
		if c := s.compareKeys(a, b); c != 0 || s.unique || s.stable {
			return c
		}
	}
	c := bytes.Compare(a, b)
	if s.reverse {
		return -c
	}
	return c
}

func (k *sortKey) compare(a, b []byte) (c int) {
	switch k.order {
	case 'n':
		c = compareDecimal(a, b)
	case 'g':
		c = cmp.Compare(general(a), general(b))
	case 'h':
		c = compareHuman(a, b)
	case 'M':
		c = cmp.Compare(month(a), month(b))
	default:
		if k.fold || k.dict || k.printable {
			a, b = k.canonical(a), k.canonical(b)
		}
		c = bytes.Compare(a, b)
	}
	if k.reverse {
		return -c
	}
	return c
}

func (k *sortKey) canonical(b []byte) []byte {
	out := make([]byte, 0, len(b))
	for _, c := range b {
		alnum := '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
		if k.dict && !alnum && !blank(c) || k.printable && (c < 32 || c > 126) {
			continue
		}
		if k.fold && 'a' <= c && c <= 'z' {
			c -= 'a' - 'A'
		}
		out = append(out, c)
	}
	return out
}

// decimal splits a number as sort -n reads it.
func decimal(b []byte) (negative bool, whole, fraction []byte, rest []byte) {
	b = bytes.TrimLeft(b, " \t")
	if len(b) > 0 && b[0] == '-' {
		negative, b = true, b[1:]
	}
	i := 0
	for i < len(b) && '0' <= b[i] && b[i] <= '9' {
		i++
	}
	whole, rest = bytes.TrimLeft(b[:i], "0"), b[i:]
	if len(rest) > 0 && rest[0] == '.' {
		j := 1
		for j < len(rest) && '0' <= rest[j] && rest[j] <= '9' {
			j++
		}
		fraction, rest = bytes.TrimRight(rest[1:j], "0"), rest[j:]
	}
	if len(whole) == 0 && len(fraction) == 0 {
		negative = false
	}
	return negative, whole, fraction, rest
}

// compareDecimal compares without loss, however long the numbers are.
func compareDecimal(a, b []byte) int {
	an, aw, af, _ := decimal(a)
	bn, bw, bf, _ := decimal(b)
	if an != bn {
		if an {
			return -1
		}
		return 1
	}
	c := cmp.Compare(len(aw), len(bw))
	if c == 0 {
		c = bytes.Compare(aw, bw)
	}
	if c == 0 {
		c = bytes.Compare(af, bf)
	}
	if an {
		return -c
	}
	return c
}

func compareHuman(a, b []byte) int {
	rank := func(v []byte) int {
		negative, whole, fraction, rest := decimal(v)
		if len(whole) == 0 && len(fraction) == 0 || len(rest) == 0 {
			return 0
		}
		r := strings.IndexByte("kKMGTPEZY", rest[0])
		r = max(r, 0) + 1
		if r == 1 && rest[0] != 'k' {
			return 0
		}
		if negative {
			return -r
		}
		return r
	}
	if c := cmp.Compare(rank(a), rank(b)); c != 0 {
		return c
	}
	return compareDecimal(a, b)
}

// general reads a floating number as strtod does: the longest prefix that is one. No number sorts first.
func general(b []byte) float64 {
	text := strings.TrimLeft(string(b), " \t")
	end := len(text)
	if i := strings.IndexFunc(text, func(r rune) bool { return !strings.ContainsRune("0123456789+-.eExXaAnNiIfFpPtTyYbBcCdD", r) }); i >= 0 {
		end = i
	}
	for ; end > 0; end-- {
		if v, err := strconv.ParseFloat(text[:end], 64); err == nil || errors.Is(err, strconv.ErrRange) {
			return v
		}
	}
	return math.Inf(-1)
}

func month(b []byte) int {
	text := strings.ToUpper(strings.TrimLeft(string(b), " \t"))
	if len(text) < 3 {
		return 0
	}
	i := strings.Index("JANFEBMARAPRMAYJUNJULAUGSEPOCTNOVDEC", text[:3])
	if i%3 != 0 {
		return 0
	}
	return i/3 + 1
}

const lineOverhead = 24 // bytes of a slice header

func (s *sorter) add(line []byte) error {
	line = chomp(line)
	cost := int64(len(line)) + lineOverhead
	if limit := s.e.limits.SortMemory; limit > 0 && s.size+cost > limit {
		if err := s.spill(); err != nil {
			return err
		}
	}
	s.size += cost
	if cap(s.arena)-len(s.arena) < len(line) {
		s.arena = make([]byte, 0, max(1<<20, len(line)))
	}
	at := len(s.arena)
	s.arena = append(s.arena, line...)
	s.lines = append(s.lines, s.arena[at:len(s.arena):len(s.arena)])
	return nil
}

// spill sorts what is held and puts it on disk as one run.
func (s *sorter) spill() error {
	if len(s.lines) == 0 {
		return nil
	}
	slices.SortStableFunc(s.lines, s.compare)
	f, err := os.CreateTemp(s.e.service.cfg.SpillDir, "drover-sort-")
	if err != nil {
		return fmt.Errorf("sort: %w", err)
	}
	s.runs = append(s.runs, f)
	if err := os.Remove(f.Name()); err != nil { // it lives as long as it is open
		return fmt.Errorf("sort: %w", err)
	}
	w := bufio.NewWriterSize(f, blockSize)
	for _, line := range s.lines {
		if s.spilled += int64(len(line)) + 1; s.e.limits.SortDisk > 0 && s.spilled > s.e.limits.SortDisk {
			return &LimitError{Key: "app.logs.sort-disk", Limit: fmt.Sprintf("%d MB", s.e.limits.SortDisk>>20)}
		}
		_, _ = w.Write(line)
		_ = w.WriteByte('\n')
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("sort: %w", err)
	}
	s.lines, s.arena, s.size = nil, nil, 0
	_, err = f.Seek(0, io.SeekStart)
	return err
}

func (s *sorter) discard() {
	for _, f := range s.runs {
		_ = f.Close() // unlinked already
	}
}

func (s *sorter) finish(ctx context.Context) error {
	var last []byte
	first := true
	write := func(line []byte) error {
		if s.unique {
			if !first && s.same(last, line) {
				return nil
			}
			last, first = append(last[:0], line...), false
		}
		_, _ = s.e.out.Write(line)
		return s.e.out.WriteByte('\n')
	}
	if len(s.runs) == 0 {
		slices.SortStableFunc(s.lines, s.compare)
		for _, line := range s.lines {
			if err := write(line); err != nil {
				return err
			}
		}
		return nil
	}
	if err := s.spill(); err != nil {
		return err
	}
	return s.merge(ctx, write)
}

func (s *sorter) same(a, b []byte) bool {
	if len(s.keys) > 0 {
		return s.compareKeys(a, b) == 0
	}
	return bytes.Equal(a, b)
}

func (s *sorter) merge(ctx context.Context, write func([]byte) error) error {
	h := &runHeap{less: func(a, b *run) bool {
		if c := s.compare(a.line, b.line); c != 0 {
			return c < 0
		}
		return a.index < b.index
	}}
	for i, f := range s.runs {
		r := &run{index: i, in: bufio.NewReaderSize(f, 64<<10)}
		if ok, err := r.advance(); err != nil {
			return err
		} else if ok {
			h.runs = append(h.runs, r)
		}
	}
	heap.Init(h)
	for n := 0; h.Len() > 0; n++ {
		if n%4096 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		r := h.runs[0]
		if err := write(r.line); err != nil {
			return err
		}
		ok, err := r.advance()
		if err != nil {
			return err
		}
		if ok {
			heap.Fix(h, 0)
		} else {
			heap.Pop(h)
		}
	}
	return nil
}

// A run is one sorted file that is merged.
type run struct {
	index int
	in    *bufio.Reader
	line  []byte
}

func (r *run) advance() (bool, error) {
	r.line = r.line[:0]
	for {
		part, err := r.in.ReadSlice('\n')
		r.line = append(r.line, part...)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(r.line) == 0:
			return false, nil
		case err != nil && !errors.Is(err, io.EOF):
			return false, err
		default:
			r.line = chomp(r.line)
			return true, nil
		}
	}
}

type runHeap struct {
	runs []*run
	less func(a, b *run) bool
}

func (h *runHeap) Len() int           { return len(h.runs) }
func (h *runHeap) Less(i, j int) bool { return h.less(h.runs[i], h.runs[j]) }
func (h *runHeap) Swap(i, j int)      { h.runs[i], h.runs[j] = h.runs[j], h.runs[i] }
func (h *runHeap) Push(x any)         { h.runs = append(h.runs, x.(*run)) }
func (h *runHeap) Pop() any {
	last := h.runs[len(h.runs)-1]
	h.runs = h.runs[:len(h.runs)-1]
	return last
}
