package cast

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"
)

const (
	// maxLine bounds an event.
	maxLine = 16 << 20
	// maxPause bounds the time before an event: a hundred days are no session.
	maxPause = 100 * 24 * time.Hour
)

// ErrQuit is the end of a playing that the viewer ended.
var ErrQuit = errors.New("quit")

// Controls of a playing.
const (
	Pause = iota // or go on
	Step         // to the next output, while it pauses
	Quit
)

// Options of [Play].
type Options struct {
	Speed     float64       // 2 is twice as fast; 0 is 1
	IdleLimit time.Duration // longer pauses are cut to it; 0 is what the recording says
	AtOnce    bool          // no pauses at all
	Controls  <-chan int    // may be nil
	// Begin is told the header before anything is written; nil is fine.
	Begin func(*Header)
}

// Play writes the output of a recording at its pace.
func Play(ctx context.Context, from io.Reader, out io.Writer, o Options) error {
	p := &player{out: out, Options: o}
	if p.Speed == 0 {
		p.Speed = 1
	}
	lines := bufio.NewScanner(from)
	lines.Buffer(make([]byte, 0, 64<<10), maxLine)
	head, err := header(lines)
	if err != nil {
		return err
	}
	if p.IdleLimit == 0 && head.IdleLimit > 0 {
		p.IdleLimit = seconds(head.IdleLimit)
	}
	if o.Begin != nil {
		o.Begin(head)
	}
	for number := 2; lines.Scan(); number++ {
		if len(strings.TrimSpace(lines.Text())) == 0 {
			continue
		}
		at, kind, data, err := event(lines.Bytes())
		if err != nil {
			return fmt.Errorf("line %d of the recording: %w", number, err)
		}
		if kind != kindOutput {
			continue // what was typed shows in the output, and nobody's window can be resized
		}
		if err := p.wait(ctx, at); err != nil {
			return err
		}
		if _, err := io.WriteString(out, data); err != nil {
			return err
		}
	}
	return tooLong(lines.Err())
}

// header reads the first line.
func header(lines *bufio.Scanner) (*Header, error) {
	if !lines.Scan() {
		if err := lines.Err(); err != nil {
			return nil, tooLong(err)
		}
		return nil, errors.New("the recording is empty")
	}
	var head Header
	err := json.Unmarshal(lines.Bytes(), &head)
	switch {
	case head.Version == 1 || head.Version > 2:
		return nil, fmt.Errorf("this is asciicast v%d; only v2 can be played", head.Version)
	case err != nil, head.Version != 2:
		return nil, errors.New("this is no recording: its first line is no header of asciicast v2")
	}
	return &head, nil
}

func tooLong(err error) error {
	if errors.Is(err, bufio.ErrTooLong) {
		return fmt.Errorf("the recording has a line of more than %d bytes", maxLine)
	}
	return err
}

// event reads one line: [time, kind, data].
func event(line []byte) (at time.Duration, kind, data string, err error) {
	var parts []json.RawMessage
	var when float64
	if json.Unmarshal(line, &parts) != nil || len(parts) != 3 || json.Unmarshal(parts[0], &when) != nil ||
		json.Unmarshal(parts[1], &kind) != nil || json.Unmarshal(parts[2], &data) != nil {
		return 0, "", "", errors.New("it is no event of the form [seconds, kind, text]")
	}
	return seconds(when), kind, data, nil
}

// seconds bounds what would not be a duration.
func seconds(s float64) time.Duration {
	switch {
	case math.IsNaN(s) || s < 0:
		return 0
	case s > maxPause.Seconds():
		return maxPause
	}
	return time.Duration(s * float64(time.Second))
}

// A player keeps the pace. Events are due by the clock, not by the pause since the one before, so that writing them
// does not slow the recording down.
type player struct {
	Options
	out    io.Writer
	last   time.Duration // of the recording
	due    time.Time     // of the last event
	paused bool
}

// wait waits until the event at a time of the recording is due.
func (p *player) wait(ctx context.Context, at time.Duration) error {
	pause := max(at-p.last, 0)
	p.last = max(at, p.last)
	if p.IdleLimit > 0 {
		pause = min(pause, p.IdleLimit)
	}
	if p.AtOnce {
		return ctx.Err()
	}
	if p.due.IsZero() {
		p.due = time.Now()
	}
	p.due = p.due.Add(time.Duration(float64(pause) / p.Speed))
	for {
		timer := time.NewTimer(time.Until(p.due))
		due, begun := timer.C, time.Now()
		if p.paused {
			due = nil
		}
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-due:
			return nil
		case c, ok := <-p.Controls:
			timer.Stop()
			if p.paused {
				p.due = p.due.Add(time.Since(begun))
			}
			switch {
			case !ok:
				p.Controls, p.paused = nil, false // nobody is there to go on
			case c == Quit:
				return ErrQuit
			case c == Pause:
				p.paused = !p.paused
			case c == Step && p.paused:
				p.due = time.Now()
				return nil
			}
		}
	}
}
