package ui

import (
	"io"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/docker/go-units"
)

// A Style colours a cell.
type Style int

// The styles of a cell.
const (
	Plain Style = iota
	Good
	Busy
	Bad
	Faint
	Strong
)

const reset = "\x1b[0m"

func (s Style) code() string {
	switch s {
	case Good:
		return "\x1b[32m"
	case Busy:
		return "\x1b[33m"
	case Bad:
		return "\x1b[31m"
	case Faint:
		return "\x1b[2m"
	case Strong:
		return "\x1b[1m"
	default:
		return ""
	}
}

// A Cell is one text of a table.
type Cell struct {
	Text  string
	Style Style
}

// Text returns a plain cell.
func Text(s string) Cell { return Cell{Text: s} }

// A Table has one header and rows of as many cells. The first column is what --quiet prints.
type Table struct {
	Header []string
	Rows   [][]Cell
	// Where a terminal is too narrow, the columns Shrink are shortened, down to a dozen characters; if that is not
	// enough, the columns Drop are left out, one by one.
	Shrink, Drop []int
}

// Row adds a row.
func (t *Table) Row(cells ...Cell) { t.Rows = append(t.Rows, cells) }

// Table writes t aligned, with the columns three spaces apart, and on a narrow terminal two; with Quiet only the first
// column and no header.
func (p *Printer) Table(t *Table) error {
	_, err := io.WriteString(p.Out, strings.Join(p.lines(t), ""))
	return err
}

// lines returns the lines of t, each with its newline.
func (p *Printer) lines(t *Table) []string {
	all := make([]string, 0, len(t.Rows)+1)
	if p.Quiet {
		for _, r := range t.Rows {
			all = append(all, Clean(r[0].Text)+"\n")
		}
		return all
	}
	for _, r := range t.Rows {
		for i := range r {
			r[i].Text = Clean(r[i].Text)
		}
	}
	header := make([]Cell, len(t.Header))
	for i, h := range t.Header {
		header[i] = Cell{Text: h, Style: Faint}
	}
	columns, gap := t.fit(p.width())
	for _, cells := range append([][]Cell{header}, t.Rows...) {
		last := len(columns) - 1
		for last > 0 && cells[columns[last].index].Text == "" {
			last--
		}
		var b strings.Builder
		for i, col := range columns[:last+1] {
			c := cells[col.index]
			text := cut(c.Text, col.width)
			b.WriteString(p.Paint(c.Style, text))
			if i < last {
				b.WriteString(strings.Repeat(" ", col.width-utf8.RuneCountInString(text)+gap))
			}
		}
		all = append(all, b.String()+"\n")
	}
	return all
}

// width is what a line may have on the terminal, 0 where there is none. The last place stays free: a terminal that has
// written there would erase it with what is behind the line.
func (p *Printer) width() int {
	if p.Width == nil {
		return 0
	}
	return max(p.Width()-1, 0)
}

// cut shortens s to most characters.
func cut(s string, most int) string {
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	return string([]rune(s)[:most-1]) + "…"
}

type column struct{ index, width int }

const (
	gapWide, gapNarrow = 3, 2
	shrunk             = 12 // what a column is shortened to at most
)

// fit chooses the columns, their widths and the space between them for a terminal that is so wide; 0 is any width.
func (t *Table) fit(width int) ([]column, int) {
	columns := make([]column, len(t.Header))
	for i, h := range t.Header {
		columns[i] = column{i, utf8.RuneCountInString(h)}
		for _, r := range t.Rows {
			columns[i].width = max(columns[i].width, utf8.RuneCountInString(r[i].Text))
		}
	}
	if width <= 0 || excess(columns, gapWide, width) <= 0 {
		return columns, gapWide
	}
	for drop := t.Drop; ; drop = drop[1:] {
		fitted := slices.Clone(columns)
		t.shrink(fitted, excess(fitted, gapNarrow, width))
		if excess(fitted, gapNarrow, width) <= 0 || len(drop) == 0 {
			return fitted, gapNarrow
		}
		columns = slices.DeleteFunc(columns, func(c column) bool { return c.index == drop[0] })
	}
}

// excess is how much too wide columns are.
func excess(columns []column, gap, width int) int {
	sum := -gap
	for _, c := range columns {
		sum += c.width + gap
	}
	return sum - width
}

// shrink takes so many characters from the columns that may be shortened, from the widest first.
func (t *Table) shrink(columns []column, excess int) {
	for ; excess > 0; excess-- {
		widest := -1
		for i, c := range columns {
			least := max(shrunk, utf8.RuneCountInString(t.Header[c.index]))
			if slices.Contains(t.Shrink, c.index) && c.width > least && (widest < 0 || c.width > columns[widest].width) {
				widest = i
			}
		}
		if widest < 0 {
			return
		}
		columns[widest].width--
	}
}

// Paint colours s if the printer has colours.
func (p *Printer) Paint(style Style, s string) string {
	if !p.Color || style == Plain || s == "" {
		return s
	}
	return style.code() + s + reset
}

// Clean takes control characters out of s, so that a name cannot steer the terminal.
func Clean(s string) string {
	if strings.IndexFunc(s, unicode.IsControl) < 0 {
		return s
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '\uFFFD'
		}
		return r
	}, s)
}

// Ago words how long before now t was; "" for the zero time.
func (p *Printer) Ago(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	now := time.Now
	if p.Now != nil {
		now = p.Now
	}
	d := now().Sub(t)
	if d < time.Second {
		return "just now"
	}
	return strings.ToLower(units.HumanDuration(d)) + " ago"
}

// Short cuts a hexadecimal id to twelve characters, as engines print it.
func Short(id string) string {
	if len(id) > 12 {
		return id[:12]
	}
	return id
}
