package ui

import (
	"fmt"
	"strings"
	"testing"
)

func TestBars(t *testing.T) {
	var out strings.Builder
	b := NewBars(&out, true, func() int { return 100 })
	b.Set("Pushing x", []Bar{{Name: "0123456789abcdef", Status: "Pushing", Current: 50e6, Total: 100e6}, {Name: "b\x1b", Status: "Layer already exists"}})
	want := "\rPushing x\x1b[K\n" +
		"  0123456789ab  Pushing               [============            ]  50MB of 100MB\x1b[K\n" +
		"  b\uFFFD            Layer already exists\x1b[K\n\x1b[J"
	if out.String() != want {
		t.Errorf("drew\n%q, want\n%q", out.String(), want)
	}
	out.Reset()
	var many []Bar
	for i := range 30 {
		many = append(many, Bar{Name: fmt.Sprint("done", i), Status: "Pull complete", Current: 1, Total: 1})
	}
	many = append(many, Bar{Name: "busy", Status: "Downloading", Current: 1, Total: 2})
	b.Set("Pulling x", many)
	if s := out.String(); !strings.HasPrefix(s, "\r\x1b[3A") || !strings.Contains(s, "busy") || !strings.Contains(s, "and 21 more") || strings.Count(s, "\n") != 12 {
		t.Errorf("drew %q", s)
	}
	out.Reset()
	b.Stop()
	b.Stop()
	if out.String() != "\r\x1b[12A\x1b[J" {
		t.Errorf("erased by %q", out.String())
	}
	out.Reset()
	quiet := NewBars(&out, false, nil)
	quiet.Set("x", many)
	quiet.Stop()
	if out.Len() != 0 {
		t.Errorf("drew %q where there is no terminal", out.String())
	}
}
