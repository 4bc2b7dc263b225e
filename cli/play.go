package cli

import (
	"context"
	"errors"
	"io"
	"math"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/droverhq/drover/cli/cast"
	"github.com/droverhq/drover/cli/terminal"
	"github.com/droverhq/drover/cli/ui"
)

// playFlags are the flags of `drover play`.
type playFlags struct {
	speed float64
	idle  time.Duration
	all   bool
}

func (a *app) playCommand() *cobra.Command {
	var o playFlags
	cmd := &cobra.Command{
		Use:   "play FILE",
		Short: "Play a recorded terminal session",
		Long: `Plays an asciicast v2, as 'drover record' and asciinema write it; - is standard input. On a terminal the space bar pauses
and goes on, a dot shows the next output while it pauses, and q or Ctrl-C ends it.

A recording is shown as it is, with all that steers a terminal: play what you trust.`,
		Example: "  drover play web-20261128-143000.cast\n  drover play --speed 4 --idle-limit 1s upgrade.cast\n  drover play --all upgrade.cast | less -R",
		Args:    takes("FILE"),
		RunE:    a.run(func(ctx context.Context, args []string) error { return a.play(ctx, args[0], &o) }),
	}
	f := cmd.Flags()
	f.Float64Var(&o.speed, "speed", 1, "2 is twice as fast, 0.5 half")
	f.DurationVar(&o.idle, "idle-limit", 0, "cut longer pauses to this (default: what the recording says)")
	f.BoolVar(&o.all, "all", false, "at once, without pauses")
	return cmd
}

func (a *app) play(ctx context.Context, name string, o *playFlags) error {
	if !(o.speed > 0) || math.IsInf(o.speed, 0) { // NaN is neither
		return usagef("--speed %v is not above 0", o.speed)
	}
	if o.idle < 0 {
		return usagef("--idle-limit %v is negative", o.idle)
	}
	from := a.env.Stdin
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return err
		}
		defer file.Close()
		from = file
	}
	opts := cast.Options{Speed: o.speed, IdleLimit: o.idle, AtOnce: o.all, Begin: a.beginPlaying}
	if o.all || name == "-" || !isTerminal(a.env.Stdin) || !isTerminal(a.env.Stdout) {
		return cast.Play(ctx, from, a.env.Stdout, opts)
	}
	t, err := terminal.Take(a.env.Stdin, a.env.Stdout, true, nil)
	if err != nil {
		return err
	}
	defer t.Release()
	keys, err := terminal.NewInput(a.env.Stdin)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	controls := make(chan int)
	var typing sync.WaitGroup
	typing.Go(func() { controlPlaying(ctx, keys, controls) })
	defer typing.Wait()
	defer keys.Stop()
	defer stop()
	opts.Controls = controls
	err = cast.Play(ctx, from, a.env.Stdout, opts)
	// Whatever the recording did to the terminal ends with it.
	_, werr := io.WriteString(a.env.Stdout, terminal.Reset+"\r\n")
	if errors.Is(err, cast.ErrQuit) {
		return nil
	}
	return errors.Join(err, werr)
}

// beginPlaying says what is going to be seen, if it will not fit.
func (a *app) beginPlaying(h *cast.Header) {
	size := terminal.SizeOf(a.env.Stdout)
	if size != (terminal.Size{}) && (h.Width > int(size.Width) || h.Height > int(size.Height)) {
		a.note("drover: it was recorded on a terminal of %d by %d; this one has %d by %d\r", h.Width, h.Height, size.Width, size.Height)
	}
	if h.Title != "" && isTerminal(a.env.Stdout) {
		a.note("%s\r", ui.Clean(h.Title))
	}
}

// controlPlaying passes on what keys mean until ctx or the keys end.
func controlPlaying(ctx context.Context, keys io.Reader, controls chan<- int) {
	defer close(controls)
	buf := make([]byte, 64)
	for {
		n, err := keys.Read(buf)
		for _, key := range buf[:n] {
			control := 0
			switch key {
			case ' ':
				control = cast.Pause
			case '.':
				control = cast.Step
			case 'q', 'Q', 3, 4: // Ctrl-C, Ctrl-D
				control = cast.Quit
			default:
				continue
			}
			select {
			case controls <- control:
			case <-ctx.Done():
				return
			}
		}
		if err != nil {
			return
		}
	}
}
