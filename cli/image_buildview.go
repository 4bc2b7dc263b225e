package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/droverhq/drover/cli/client"
	"github.com/droverhq/drover/cli/ui"
)

const (
	drawEvery   = 250 * time.Millisecond // the shortest time between two pictures of bars
	maxOpenLine = 4096                   // bytes of a line that has not ended
)

// transferBars draws how far transfers are, at most four times a second. It is safe for concurrent use.
type transferBars struct {
	mu   sync.Mutex
	bars *ui.Bars
	last time.Time
}

// newTransferBars returns bars on standard error, which draw on a terminal only.
func (a *app) newTransferBars() *transferBars {
	live := !a.flags.quiet && isTerminal(a.env.Stderr) && a.env.Getenv("TERM") != "dumb"
	return &transferBars{bars: ui.NewBars(a.env.Stderr, live, func() int { return terminalWidth(a.env.Stderr) })}
}

func (t *transferBars) set(text string, bars []ui.Bar) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now := time.Now(); now.Sub(t.last) >= drawEvery {
		t.last = now
		t.bars.Set(text, bars)
	}
}

// print writes a text above the bars.
func (t *transferBars) print(w io.Writer, text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.bars.Stop()
	_, _ = io.WriteString(w, text)
}

func (t *transferBars) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.bars.Stop()
	t.last = time.Now().Add(time.Hour) // nothing is drawn any more
}

// A buildView shows a build: a line a step and a line of its output on standard error, bars for transfers below.
type buildView struct {
	a      *app
	out    *transferBars
	open   map[string]string // lines that have not ended, by step: several run at once
	layers []ui.Bar
	failed *client.BuildStep
	began  map[string]bool
}

func (a *app) newBuildView() *buildView {
	return &buildView{a: a, out: a.newTransferBars(), began: map[string]bool{}, open: map[string]string{}}
}

// sent takes how much of the context was sent.
func (v *buildView) sent(n int64) {
	v.out.set("Sending the context: "+size(n), nil)
}

func (v *buildView) line(format string, args ...any) {
	if !v.a.flags.quiet {
		v.out.print(v.a.env.Stderr, fmt.Sprintf(format, args...)+"\n")
	}
}

// label names a step in brackets.
func label(s *client.BuildStep) string {
	switch {
	case s.Step != "":
		return "[" + ui.Clean(s.Step) + "]"
	case s.ID != "":
		return "[" + ui.Clean(s.ID) + "]"
	}
	return "[-]"
}

// internal tells BuildKit's own doings, of which only trouble is shown.
func internal(s *client.BuildStep) bool {
	return s.Step == "" && (strings.HasPrefix(s.Name, "[internal]") || strings.HasPrefix(s.Name, "copy /context"))
}

// step shows one message.
func (v *buildView) step(s *client.BuildStep) {
	switch {
	case s.State == "failed":
		v.failed = s
	case s.State != "" && internal(s):
	case s.State == "started":
		v.begin(s)
	case s.State == "cached", s.State == "done":
		v.begin(s)
		text := s.State
		if s.Millis > 0 {
			text += fmt.Sprintf(" in %.1f s", float64(s.Millis)/1000)
		}
		if s.Layer != "" {
			text += "  -> " + ui.Clean(shortImage(s.Layer))
		}
		v.flush(s)
		v.line("%s %s", label(s), text)
	case s.Text != "":
		v.text(s)
	case s.Layer != "":
		v.transfer(s)
	}
}

// begin names a step, once.
func (v *buildView) begin(s *client.BuildStep) {
	key := s.Step + " " + s.ID
	if v.began[key] {
		return
	}
	v.began[key] = true
	v.line("%s %s", label(s), ui.Clean(s.Name))
}

// text shows output, a line at a time.
func (v *buildView) text(s *client.BuildStep) {
	lines := strings.Split(v.open[label(s)]+s.Text, "\n")
	rest := lines[len(lines)-1]
	if len(rest) > maxOpenLine {
		lines, rest = append(lines, ""), ""
	}
	v.open[label(s)] = rest // more of it may come
	for _, l := range lines[:len(lines)-1] {
		v.line("%s | %s", label(s), ui.Clean(strings.TrimRight(l, "\r")))
	}
}

// flush shows the line of a step that has not ended.
func (v *buildView) flush(s *client.BuildStep) {
	if rest := v.open[label(s)]; rest != "" {
		v.line("%s | %s", label(s), ui.Clean(rest))
	}
	delete(v.open, label(s))
}

func (v *buildView) transfer(s *client.BuildStep) {
	bar := ui.Bar{Name: s.Layer, Status: s.Name, Current: s.Current, Total: s.Total}
	if i := slices.IndexFunc(v.layers, func(b ui.Bar) bool { return b.Name == s.Layer }); i >= 0 {
		v.layers[i] = bar
	} else if len(v.layers) < 1000 {
		v.layers = append(v.layers, bar)
	}
	v.out.set("Fetching the base image", v.layers)
}

// end shows what is left to say: where the build failed, and what there is to look into.
func (v *buildView) end(err error) {
	f := v.failed
	if f != nil {
		v.flush(f)
	}
	v.out.stop()
	if err == nil || f == nil {
		return
	}
	w := v.a.env.Stderr
	fmt.Fprintf(w, "failed: %s %s\n", label(f), ui.Clean(f.Name))
	for _, l := range f.Tail {
		fmt.Fprintf(w, "  | %s\n", ui.Clean(l))
	}
	switch {
	case f.Image != "":
		image := ui.Clean(shortImage(f.Image))
		fmt.Fprintf(w, "the image of the steps before it is %s; to look into it: drover run %s sleep 600\n", image, image)
	case f.ID != "" && f.Step != "":
		fmt.Fprintln(w, "BuildKit keeps no image of the steps before it; --builder classic does")
	}
}
