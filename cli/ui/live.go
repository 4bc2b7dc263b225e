package ui

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// A Live is a table that is drawn again and again: on a terminal in place, elsewhere one below the other. It is used by
// one goroutine.
type Live struct {
	p      *Printer
	live   bool
	height func() int
	drawn  int // lines
}

// NewLive returns a table on p, in place if live. height tells the terminal's lines.
func NewLive(p *Printer, live bool, height func() int) *Live {
	return &Live{p: p, live: live, height: height}
}

// Draw draws t and the notes below it. Rows that the terminal has no room for are counted instead.
func (l *Live) Draw(t *Table, notes ...string) error {
	lines := l.p.lines(t)
	if !l.live {
		if l.drawn > 0 && !l.p.Quiet {
			lines = slices.Insert(lines, 0, "\n")
		}
		l.drawn = len(lines)
		_, err := io.WriteString(l.p.Out, strings.Join(lines, ""))
		return err
	}
	width := l.p.width()
	for _, n := range notes {
		if n = Clean(n); width > 0 {
			n = cut(n, width)
		}
		lines = append(lines, l.p.Paint(Faint, n)+"\n")
	}
	if room := l.height() - 1; room > 2 && len(lines) > room {
		hidden := len(lines) - room + 1
		lines = append(lines[:room-1], l.p.Paint(Faint, fmt.Sprintf("and %d more lines", hidden))+"\n")
	}
	var b strings.Builder
	b.WriteByte('\r')
	if l.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", l.drawn)
	}
	for _, line := range lines {
		b.WriteString(strings.TrimSuffix(line, "\n") + "\x1b[K\n")
	}
	b.WriteString("\x1b[J") // fewer lines than before
	l.drawn = len(lines)
	_, err := io.WriteString(l.p.Out, b.String())
	return err
}
