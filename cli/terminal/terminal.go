package terminal

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/term"

	"github.com/droverhq/drover/runtime"
)

// ErrNoTerminal says that what should be a terminal is none.
var ErrNoTerminal = errors.New("the input device is not a TTY")

// A Size is in characters.
type Size = runtime.TerminalSize

// A Terminal is in raw mode until Release.
type Terminal struct {
	in, out *os.File
	before  *term.State
	seen    func(Size)
	sizes   chan Size
	signals chan os.Signal
	ended   sync.WaitGroup
	release sync.Once
}

// IsTerminal reports whether f is a terminal.
func IsTerminal(f any) bool {
	file, ok := f.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// SizeOf returns the size of a terminal, and zero where there is none.
func SizeOf(f any) Size {
	file, ok := f.(*os.File)
	if !ok {
		return Size{}
	}
	width, height, err := term.GetSize(int(file.Fd()))
	if err != nil || width <= 0 || height <= 0 || width > 0xffff || height > 0xffff {
		return Size{}
	}
	return Size{Width: uint16(width), Height: uint16(height)}
}

// Take takes the user's terminal. With raw, every key of in is passed on as it is, Ctrl-C too; without, in may be nil,
// and only the sizes of out are told. It is an error if in has to be a terminal and is none. seen, which may be nil, is
// called for each new size.
func Take(in, out any, raw bool, seen func(Size)) (*Terminal, error) {
	t := &Terminal{seen: seen, sizes: make(chan Size, 1), signals: make(chan os.Signal, 4)}
	t.out, _ = out.(*os.File)
	if raw {
		if !IsTerminal(in) {
			return nil, ErrNoTerminal
		}
		t.in, _ = in.(*os.File)
		if !IsTerminal(t.out) {
			t.out = t.in // the output goes elsewhere; the size is that of where the user sits
		}
		before, err := term.MakeRaw(int(t.in.Fd()))
		if err != nil {
			return nil, fmt.Errorf("put the terminal into raw mode: %w", err)
		}
		t.before = before
	}
	signal.Notify(t.signals, syscall.SIGWINCH, syscall.SIGCONT)
	first := t.Size()
	t.ended.Go(func() { t.watch(first) })
	return t, nil
}

// watch passes on new sizes, and takes the terminal again when the process was stopped and goes on.
func (t *Terminal) watch(last Size) {
	defer close(t.sizes)
	for sig := range t.signals {
		if sig == syscall.SIGCONT && t.before != nil {
			// A shell put its own mode back while we were stopped.
			_, _ = term.MakeRaw(int(t.in.Fd()))
		}
		if size := t.Size(); size != (Size{}) && size != last {
			last = size
			if t.seen != nil {
				t.seen(size)
			}
			t.put(size)
		}
	}
}

// put leaves the newest size in the channel.
func (t *Terminal) put(size Size) {
	for {
		select {
		case t.sizes <- size:
			return
		default:
		}
		select {
		case <-t.sizes:
		default:
		}
	}
}

// Size is the present one; zero where there is no terminal.
func (t *Terminal) Size() Size { return SizeOf(t.out) }

// Sizes tells each new size; of several that nobody has read, the newest. It is closed by Release.
func (t *Terminal) Sizes() <-chan Size { return t.sizes }

// Release puts the terminal back as it was. It may be called more than once.
func (t *Terminal) Release() {
	t.release.Do(func() {
		signal.Stop(t.signals)
		close(t.signals)
		t.ended.Wait()
		if t.before != nil {
			// There is nobody to tell where a terminal that was there before is gone.
			_ = term.Restore(int(t.in.Fd()), t.before)
		}
	})
}

// Reset is what undoes what a program that was cut off may have left behind: colours, a hidden cursor, the alternate
// screen, reports of the mouse and of the focus, bracketed paste.
const Reset = "\x1b[0m\x1b[?25h\x1b[?1049l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1004l\x1b[?1006l\x1b[?2004l"
