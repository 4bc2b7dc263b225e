package ui

import (
	"fmt"
	"io"
	"sync"
	"time"
	"unicode/utf8"
)

// Progress is one line that is rewritten in place, on a terminal only. On anything else it prints nothing.
type Progress struct {
	out   io.Writer
	live  bool
	start time.Time
	width func() int

	mu   sync.Mutex // guards text
	text string

	stop chan struct{}
	done chan struct{}
}

// NewProgress returns a progress line on out and, if live, starts to draw it. width tells the terminal's columns.
func NewProgress(out io.Writer, live bool, width func() int) *Progress {
	p := &Progress{
		out: out, live: live, start: time.Now(), width: width,
		stop: make(chan struct{}), done: make(chan struct{}),
	}
	if !live {
		close(p.done)
		return p
	}
	go p.draw()
	return p
}

// Set changes the text.
func (p *Progress) Set(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.text = fmt.Sprintf(format, args...)
}

// Stop erases the line and returns when nothing more will be drawn. It is called once.
func (p *Progress) Stop() {
	close(p.stop)
	<-p.done
}

func (p *Progress) draw() {
	defer close(p.done)
	frames := []rune("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏")
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	drawn := false
	for i := 0; ; i++ {
		select {
		case <-p.stop:
			if drawn {
				fmt.Fprint(p.out, "\r\x1b[K")
			}
			return
		case <-tick.C:
		}
		p.mu.Lock()
		text := Clean(p.text)
		p.mu.Unlock()
		if text == "" {
			continue
		}
		line := fmt.Sprintf("%c %s  %ds", frames[i%len(frames)], text, int(time.Since(p.start).Seconds()))
		if w := p.width(); w > 1 && utf8.RuneCountInString(line) >= w {
			line = string([]rune(line)[:w-1])
		}
		fmt.Fprint(p.out, "\r\x1b[K"+line)
		drawn = true
	}
}
