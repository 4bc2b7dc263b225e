package containerlog

import (
	"bytes"
	"regexp"
	"regexp/syntax"
)

// pieceSize is the length at which dockerd cuts a line.
const pieceSize = 16 << 10

// A filter keeps the lines that match an expression.
type filter struct {
	re *regexp.Regexp
	// literal is a text that stands in each line that matches, and in its JSON form just so; empty if none is known.
	literal []byte
}

func newFilter(re *regexp.Regexp) *filter {
	f := &filter{re: re}
	if parsed, err := syntax.Parse(re.String(), syntax.Perl); err == nil {
		f.literal = []byte(required(parsed))
	}
	return f
}

func (f *filter) match(line []byte) bool {
	line = bytes.TrimSuffix(line, []byte{'\n'})
	return f.re.Match(line)
}

// required returns the longest text known to be in whatever re matches.
func required(re *syntax.Regexp) string {
	switch re.Op {
	case syntax.OpLiteral:
		if re.Flags&syntax.FoldCase != 0 {
			return ""
		}
		return longestSafe(re.Rune)
	case syntax.OpCapture, syntax.OpPlus:
		return required(re.Sub[0])
	case syntax.OpRepeat:
		if re.Min > 0 {
			return required(re.Sub[0])
		}
	case syntax.OpConcat:
		best := ""
		for _, sub := range re.Sub {
			if s := required(sub); len(s) > len(best) {
				best = s
			}
		}
		return best
	}
	return ""
}

// longestSafe returns the longest run of characters that JSON strings hold as they are, in every encoder's opinion.
func longestSafe(text []rune) string {
	best, run := "", ""
	for _, r := range text {
		if r < ' ' || r > '~' || r == '"' || r == '\\' || r == '/' || r == '<' || r == '>' || r == '&' {
			run = ""
			continue
		}
		if run += string(r); len(run) > len(best) {
			best = run
		}
	}
	return best
}
