package ui

import (
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
}

// Row adds a row.
func (t *Table) Row(cells ...Cell) { t.Rows = append(t.Rows, cells) }

// Table writes t aligned, with the columns three spaces apart; with Quiet only the first column and no header.
func (p *Printer) Table(t *Table) error {
	var b strings.Builder
	if p.Quiet {
		for _, r := range t.Rows {
			b.WriteString(Clean(r[0].Text) + "\n")
		}
		_, err := p.Out.Write([]byte(b.String()))
		return err
	}
	widths := make([]int, len(t.Header))
	for i, h := range t.Header {
		widths[i] = utf8.RuneCountInString(h)
	}
	for _, r := range t.Rows {
		for i := range r {
			r[i].Text = Clean(r[i].Text)
			widths[i] = max(widths[i], utf8.RuneCountInString(r[i].Text))
		}
	}
	line := func(cells []Cell) {
		last := len(cells) - 1
		for last > 0 && cells[last].Text == "" {
			last--
		}
		for i, c := range cells[:last+1] {
			b.WriteString(p.Paint(c.Style, c.Text))
			if i < last {
				b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c.Text)+3))
			}
		}
		b.WriteByte('\n')
	}
	header := make([]Cell, len(t.Header))
	for i, h := range t.Header {
		header[i] = Cell{Text: h, Style: Faint}
	}
	line(header)
	for _, r := range t.Rows {
		line(r)
	}
	_, err := p.Out.Write([]byte(b.String()))
	return err
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
