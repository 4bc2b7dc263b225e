package ui

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/docker/go-units"
)

// maxBars is how many bars are drawn at once; a terminal is not higher.
const maxBars = 10

// A Bar is how far one part of a transfer has come.
type Bar struct {
	Name    string
	Status  string
	Current int64 // bytes
	Total   int64 // bytes, 0 if unknown
}

// Bars is a block of progress bars under a line of text, rewritten in place on a terminal only. On anything else it
// prints nothing. It is used by one goroutine.
type Bars struct {
	out   io.Writer
	live  bool
	width func() int
	drawn int // lines
}

// NewBars returns bars on out, which draws only if live. width tells the terminal's columns.
func NewBars(out io.Writer, live bool, width func() int) *Bars {
	return &Bars{out: out, live: live, width: width}
}

// Set draws the text and the bars. Of more than fit, those that are at work are shown.
func (b *Bars) Set(text string, bars []Bar) {
	if !b.live {
		return
	}
	lines := []string{Clean(text)}
	shown := bars
	if len(bars) > maxBars {
		shown = slices.Clone(bars)
		slices.SortStableFunc(shown, func(x, y Bar) int { return rank(&x) - rank(&y) })
		shown = shown[:maxBars]
	}
	for i := range shown {
		lines = append(lines, shown[i].line())
	}
	if hidden := len(bars) - len(shown); hidden > 0 {
		lines = append(lines, fmt.Sprintf("  and %d more", hidden))
	}
	var s strings.Builder
	b.home(&s)
	w := b.width()
	for _, line := range lines {
		if w > 1 && utf8.RuneCountInString(line) >= w {
			line = string([]rune(line)[:w-1])
		}
		s.WriteString(line + "\x1b[K\n")
	}
	s.WriteString("\x1b[J") // fewer lines than before
	b.drawn = len(lines)
	_, _ = io.WriteString(b.out, s.String())
}

// Stop erases the block.
func (b *Bars) Stop() {
	if b.drawn == 0 {
		return
	}
	var s strings.Builder
	b.home(&s)
	s.WriteString("\x1b[J")
	b.drawn = 0
	_, _ = io.WriteString(b.out, s.String())
}

// home goes to the block's first line.
func (b *Bars) home(s *strings.Builder) {
	s.WriteByte('\r')
	if b.drawn > 0 {
		fmt.Fprintf(s, "\x1b[%dA", b.drawn)
	}
}

// rank orders bars: at work, waiting, done.
func rank(b *Bar) int {
	switch {
	case b.Total > 0 && b.Current < b.Total:
		return 0
	case b.Total == 0 && b.Current == 0:
		return 1
	}
	return 2
}

const barWidth = 24

func (b *Bar) line() string {
	line := fmt.Sprintf("  %-12s  %-20s", Clean(Short(b.Name)), Clean(b.Status))
	if b.Total <= 0 {
		return strings.TrimRight(line, " ")
	}
	filled := int(max(0, min(b.Current, b.Total)) * barWidth / b.Total)
	return fmt.Sprintf("%s  [%s%s]  %s of %s", line, strings.Repeat("=", filled), strings.Repeat(" ", barWidth-filled),
		units.HumanSize(float64(b.Current)), units.HumanSize(float64(b.Total)))
}
