package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/droverhq/drover/cli/cast"
	"github.com/droverhq/drover/cli/client"
	"github.com/droverhq/drover/cli/terminal"
	"github.com/droverhq/drover/service/streamclient"
)

// recordFlags are the flags of `drover record`.
type recordFlags struct {
	processFlags

	file, title  string
	idle         time.Duration
	input, force bool
}

func (a *app) recordCommand() *cobra.Command {
	var o recordFlags
	cmd := &cobra.Command{
		Use:   "record [flags] CONTAINER [COMMAND [ARG...]]",
		Short: "Run a command in a container and record the terminal",
		Long: `Runs a command, sh if none is given, in a container on this terminal, as drover exec -it does, and records what it shows
as an asciicast v2, which 'drover play' and asciinema play. Without a terminal here it records a command that nobody types
at.

A recording holds what the screen showed; what was typed only with --input, and then passwords too. The file is for its
owner alone.

` + containerRefHelp + `

The exit code is that of the command, as with drover exec; 1 if the recording could not be written to its end.`,
		Example: `  drover record web
  drover record --file upgrade.cast --title 'Upgrade of db' web-1/db bash
  drover play upgrade.cast --speed 2 --idle-limit 1s`,
		Args: takes("CONTAINER..."), ValidArgsFunction: a.completeRunning,
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.SetInterspersed(false)
	f.StringVarP(&o.file, "file", "f", "", "file to write (default NAME-TIME.cast)")
	f.BoolVar(&o.force, "force", false, "overwrite the file")
	f.StringVar(&o.title, "title", "", "title of the recording")
	f.DurationVar(&o.idle, "idle-limit", 0, "play longer pauses as this (default: as they were)")
	f.BoolVar(&o.input, "input", false, "record what is typed, too")
	o.add(f)
	host := a.addContainerHost(cmd)
	cmd.RunE = a.operate(func(ctx context.Context, c *client.Client, args []string) error {
		return exitOf(a.record(ctx, c, args[0], *host, &o, args[1:]))
	})
	return cmd
}

// unfit is what a file name does without.
var unfit = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`[^A-Za-z0-9._-]+`) })

func (a *app) record(ctx context.Context, c *client.Client, ref, host string, o *recordFlags, args []string) (err error) {
	if len(args) == 0 {
		args = []string{"sh"}
	}
	opts, err := o.options(args, a.env.Getenv)
	if err != nil {
		return err
	}
	if o.idle < 0 {
		return usagef("--idle-limit %v is negative", o.idle)
	}
	t, err := a.container(ctx, c, ref, host)
	if err != nil {
		return err
	}
	defer t.streams.Close()
	now := time.Now()
	name := cmp.Or(o.file, fmt.Sprintf("%s-%s.cast", unfit().ReplaceAllString(t.Name(), "_"), now.Format("20060102-150405")))
	mode := os.O_WRONLY | os.O_CREATE | os.O_EXCL
	if o.force {
		mode = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	}
	file, err := os.OpenFile(name, mode, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return usagef("%s exists; --force overwrites it", name)
	}
	if err != nil {
		return err
	}
	interactive := isTerminal(a.env.Stdin)
	size := terminal.SizeOf(a.env.Stdout)
	if size == (terminal.Size{}) {
		size = terminal.SizeOf(a.env.Stdin)
	}
	if size == (terminal.Size{}) {
		size = terminal.Size{Width: 80, Height: 24}
	}
	opts.TTY, opts.Size = true, &size
	rec, err := cast.NewRecorder(file, cast.Header{
		Width: int(size.Width), Height: int(size.Height), Timestamp: now.Unix(), IdleLimit: o.idle.Seconds(),
		Command: strings.Join(opts.Cmd, " "), Title: cmp.Or(o.title, t.label()), Env: map[string]string{"TERM": cmp.Or(a.env.Getenv("TERM"), "xterm")},
	}, time.Now)
	if err != nil {
		return errors.Join(err, file.Close())
	}
	s := &session{app: a, interactive: interactive, tty: true, recorder: rec, keystrokes: o.input}
	err = s.run(ctx, func(ctx context.Context, streams streamclient.Streams, _ terminal.Size) error {
		opts.Streams = streams
		return runProcess(ctx, t, opts)
	})
	kept := errors.Join(rec.Close(), file.Close())
	if kept != nil {
		a.note("drover: the recording %s is not whole: %v", name, kept)
		if err == nil {
			return withExit(ExitFailed, errSilent)
		}
		return err
	}
	a.note("Recorded in %s", name)
	return err
}
