package logs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"time"
)

// timeRange is the stage that keeps the lines of a time range. It has no name that a command line could give: it is
// part of the structured form only.
const timeRange = "\x00time"

// layouts of the time that a line begins with, after an optional "[".
var layouts = []string{
	time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999Z07:00", "2006-01-02 15:04:05.999999999",
	"2006/01/02 15:04:05.999999999", "02/Jan/2006:15:04:05 -0700", "Jan _2 15:04:05.999999999", "2006-01-02",
}

// lineTime reads the time that a line begins with. A form without a zone is local, one without a year is within the
// year before now.
func lineTime(line []byte, now time.Time) (time.Time, bool) {
	line = bytes.TrimPrefix(line[:min(len(line), 48)], []byte("["))
	// A comma before the milliseconds is what some log libraries write.
	if i := bytes.IndexByte(line, ','); i == 19 {
		line = bytes.Replace(line, []byte(","), []byte("."), 1)
	}
	for _, layout := range layouts {
		words := 1 + bytes.Count([]byte(layout), []byte(" "))
		text := firstWords(line, words)
		t, err := time.ParseInLocation(layout, text, now.Location())
		if err != nil {
			continue
		}
		if t.Year() == 0 {
			t = t.AddDate(now.Year(), 0, 0)
			if t.After(now.AddDate(0, 0, 1)) {
				t = t.AddDate(-1, 0, 0)
			}
		}
		return t, true
	}
	return time.Time{}, false
}

// firstWords returns the first n words, with the blanks between them, without what closes a bracket.
func firstWords(line []byte, n int) string {
	i := 0
	for range n {
		for i < len(line) && line[i] == ' ' {
			i++
		}
		for i < len(line) && line[i] != ' ' && line[i] != ']' && line[i] != '\t' && line[i] != '\n' {
			i++
		}
	}
	return string(line[:i])
}

// keepTimes passes on the lines from since to until. A line without a time belongs to the line before it, as the lines
// of a stack trace do. In a file whose lines are in order the beginning is found by halving.
func keepTimes(ctx context.Context, e *env, args []Word) (int, error) {
	now := time.Now()
	var since, until time.Time
	for i, t := range []*time.Time{&since, &until} {
		if args[i].Text != "" {
			var err error
			if *t, err = time.Parse(time.RFC3339Nano, args[i].Text); err != nil {
				return 2, err
			}
		}
	}
	operands := args[2:]
	if len(operands) > 0 { // "--"
		operands = operands[1:]
	}
	return e.eachFile(ctx, operands, func(_ string, r io.Reader) error {
		if m, ok := r.(*metered); ok && !since.IsZero() {
			if f, ok := m.ReadCloser.(*os.File); ok {
				if err := seekTime(ctx, f, since, now); err != nil {
					return err
				}
			}
		}
		keep := since.IsZero()
		err := eachLine(r, e.out.Flush, func(line []byte) error {
			if t, ok := lineTime(line, now); ok {
				keep = !t.Before(since)
				if !until.IsZero() && t.After(until) {
					return errEnoughLines
				}
			}
			if !keep {
				return nil
			}
			_, err := e.out.Write(line)
			return err
		})
		if errors.Is(err, errEnoughLines) {
			return nil
		}
		return err
	})
}

// seekTime moves to a line before the first one that is not before since, as near as halving brings it.
func seekTime(ctx context.Context, f *os.File, since, now time.Time) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	low, high := int64(0), fi.Size() // the line at low is before since, or low is 0
	for high-low > int64(len(buf)) {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		middle := low + (high-low)/2
		at, t, ok := timedLine(f, buf, middle, now)
		if ok && t.Before(since) {
			low = at
		} else {
			high = middle // nothing with a time there: look before it
		}
	}
	_, err = f.Seek(low, io.SeekStart)
	return err
}

// timedLine finds the first line at or after off that begins with a time, within one buffer.
func timedLine(f *os.File, buf []byte, off int64, now time.Time) (at int64, t time.Time, ok bool) {
	n, _ := f.ReadAt(buf, off) // an error leaves fewer lines to look at
	block := buf[:n]
	for {
		i := bytes.IndexByte(block, '\n')
		if i < 0 || i+1 == len(block) {
			return 0, time.Time{}, false
		}
		off += int64(i + 1)
		block = block[i+1:]
		if t, ok := lineTime(block, now); ok {
			return off, t, true
		}
	}
}
