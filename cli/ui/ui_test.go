package ui

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"
)

func TestTableIsAligned(t *testing.T) {
	var out bytes.Buffer
	p := &Printer{Out: &out}
	tab := &Table{Header: []string{"ID", "NAME", "STATE"}}
	tab.Row(Text("1h1"), Text("a-long-name"), Cell{"online", Good})
	tab.Row(Text("1h22"), Text("b"), Text(""))
	if err := p.Table(tab); err != nil {
		t.Fatal(err)
	}
	want := "ID     NAME          STATE\n1h1    a-long-name   online\n1h22   b\n"
	if out.String() != want {
		t.Errorf("got\n%q\nwant\n%q", out.String(), want)
	}
}

func TestColoursDoNotChangeTheAlignment(t *testing.T) {
	var plain, colour bytes.Buffer
	for _, p := range []*Printer{{Out: &plain}, {Out: &colour, Color: true}} {
		tab := &Table{Header: []string{"STATE", "NAME"}}
		tab.Row(Cell{"online", Good}, Text("x"))
		if err := p.Table(tab); err != nil {
			t.Fatal(err)
		}
	}
	stripped := colour.String()
	for _, code := range []string{Good.code(), Faint.code(), reset} {
		if !strings.Contains(stripped, code) {
			t.Errorf("no %q in %q", code, stripped)
		}
		stripped = strings.ReplaceAll(stripped, code, "")
	}
	if stripped != plain.String() {
		t.Errorf("coloured table differs:\n%q\n%q", stripped, plain.String())
	}
}

// TestNarrowTerminals: what does not fit is shortened, then left out, and nothing is wider than the terminal.
func TestNarrowTerminals(t *testing.T) {
	row := []string{"a-container-with-a-long-name", "host-1", "12.5", "1.2 kB / 3.4 kB"}
	for width, want := range map[int]string{
		0:   "NAME                           HOST     CPU %   NET I/O\na-container-with-a-long-name   host-1   12.5    1.2 kB / 3.4 kB\n",
		200: "NAME                           HOST     CPU %   NET I/O\na-container-with-a-long-name   host-1   12.5    1.2 kB / 3.4 kB\n",
		61:  "NAME                          HOST    CPU %  NET I/O\na-container-with-a-long-name  host-1  12.5   1.2 kB / 3.4 kB\n",
		50:  "NAME               HOST    CPU %  NET I/O\na-container-with…  host-1  12.5   1.2 kB / 3.4 kB\n",
		40:  "NAME                      HOST    CPU %\na-container-with-a-long…  host-1  12.5\n",
		30:  "NAME            HOST    CPU %\na-container-w…  host-1  12.5\n",
		9:   "NAME          CPU %\na-container…  12.5\n",
	} {
		var out bytes.Buffer
		p := &Printer{Out: &out, Width: func() int { return width }}
		tab := &Table{Header: []string{"NAME", "HOST", "CPU %", "NET I/O"}, Shrink: []int{0, 1}, Drop: []int{3, 1}}
		cells := make([]Cell, len(row))
		for i, s := range row {
			cells[i] = Text(s)
		}
		tab.Row(cells...)
		if err := p.Table(tab); err != nil {
			t.Fatal(err)
		}
		if out.String() != want {
			t.Errorf("%d columns:\n%swant\n%s", width, out.String(), want)
		}
	}
}

func TestLiveTable(t *testing.T) {
	draw := func(live bool, rows ...int) string {
		var out bytes.Buffer
		l := NewLive(&Printer{Out: &out, Width: func() int { return 20 }}, live, func() int { return 6 })
		for _, n := range rows {
			tab := &Table{Header: []string{"N"}}
			for i := range n {
				tab.Row(Text(strings.Repeat("x", i+1)))
			}
			if err := l.Draw(tab, "a note that is wider than the terminal"); err != nil {
				t.Fatal(err)
			}
		}
		return out.String()
	}
	if got, want := draw(false, 1, 2), "N\nx\n\nN\nx\nxx\n"; got != want {
		t.Errorf("without a terminal %q, want %q", got, want)
	}
	want := "\rN\x1b[K\nx\x1b[K\nxx\x1b[K\na note that is wid…\x1b[K\n\x1b[J" +
		"\r\x1b[4AN\x1b[K\nx\x1b[K\na note that is wid…\x1b[K\n\x1b[J"
	if got := draw(true, 2, 1); got != want {
		t.Errorf("on a terminal %q, want %q", got, want)
	}
	if got := draw(true, 9); strings.Count(got, "\n") != 5 || !strings.Contains(got, "and 7 more lines") {
		t.Errorf("higher than the terminal: %q", got)
	}
}

func TestControlCharactersDoNotReachTheTerminal(t *testing.T) {
	var out bytes.Buffer
	p := &Printer{Out: &out}
	tab := &Table{Header: []string{"NAME"}}
	tab.Row(Text("evil\x1b[2J\x07\nname\u009b2J"))
	if err := p.Table(tab); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(out.String(), "\x1b\x07\u009b") || strings.Count(out.String(), "\n") != 2 {
		t.Errorf("control characters got through: %q", out.String())
	}
}

func TestYAMLKeepsOrderAndTypes(t *testing.T) {
	v := struct {
		Zeta   string            `json:"zeta"`
		Alpha  []string          `json:"alpha"`
		Empty  []string          `json:"empty"`
		Labels map[string]string `json:"labels"`
		N      int64             `json:"n"`
		B      bool              `json:"b"`
		Null   *int              `json:"null"`
		Raw    json.RawMessage   `json:"raw"`
	}{
		Zeta: "<&> 😀 \u2028", Alpha: []string{"true", "1", "null", "1.5", "", "- x", "a: b", "0x10", "2001-01-01", "yes"},
		Empty: []string{}, Labels: map[string]string{"k": "v"}, N: 1 << 60, B: true, Raw: json.RawMessage(`{"b":1,"a":"\u003c"}`),
	}
	var y, j bytes.Buffer
	if err := WriteYAML(&y, v); err != nil {
		t.Fatal(err)
	}
	if err := WriteJSON(&j, v); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(y.String(), "zeta: ") || strings.Index(y.String(), "alpha:") > strings.Index(y.String(), "empty:") {
		t.Errorf("order of keys is lost:\n%s", y.String())
	}
	var fromYAML, fromJSON any
	if err := yaml.Unmarshal(y.Bytes(), &fromYAML); err != nil {
		t.Fatalf("%v in\n%s", err, y.String())
	}
	if err := yaml.Unmarshal(j.Bytes(), &fromJSON); err != nil {
		t.Fatal(err)
	}
	a, _ := json.Marshal(fromYAML)
	b, _ := json.Marshal(fromJSON)
	if !bytes.Equal(a, b) {
		t.Errorf("yaml says\n%s\njson says\n%s\nof\n%s", a, b, y.String())
	}
}

func TestAgo(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	p := &Printer{Now: func() time.Time { return now }}
	for d, want := range map[time.Duration]string{
		-time.Minute: "just now", 0: "just now", 3 * time.Second: "3 seconds ago",
		5 * time.Minute: "5 minutes ago", 49 * time.Hour: "2 days ago", time.Minute: "about a minute ago",
	} {
		if got := p.Ago(now.Add(-d)); got != want {
			t.Errorf("%v: got %q, want %q", d, got, want)
		}
	}
	if got := p.Ago(time.Time{}); got != "" {
		t.Errorf("zero time: %q", got)
	}
}

func TestProgressDrawsOnATerminalOnly(t *testing.T) {
	var quiet bytes.Buffer
	p := NewProgress(&quiet, false, func() int { return 80 })
	p.Set("pulling %s", "x")
	p.Stop()
	if quiet.Len() != 0 {
		t.Errorf("printed %q without a terminal", quiet.String())
	}

	out := &waitBuffer{has: "pulling", found: make(chan struct{})}
	p = NewProgress(out, true, func() int { return 20 })
	p.Set("pulling a very long image name of a far registry")
	select {
	case <-out.found:
	case <-time.After(30 * time.Second):
		t.Fatal("nothing was drawn")
	}
	p.Stop()
	if s := out.b.String(); !strings.HasSuffix(s, "\r\x1b[K") || strings.Contains(s, "registry") {
		t.Errorf("drawn: %q", s)
	}
}

// waitBuffer closes found when has was written.
type waitBuffer struct {
	b     bytes.Buffer
	has   string
	found chan struct{}
	once  bool
}

func (w *waitBuffer) Write(p []byte) (int, error) {
	n, err := w.b.Write(p)
	if !w.once && strings.Contains(w.b.String(), w.has) {
		w.once = true
		close(w.found)
	}
	return n, err
}
