package cli

import (
	"context"
	"errors"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/droverhq/drover/cli/client"
	"github.com/droverhq/drover/service"
	"github.com/droverhq/drover/service/containerlog"
	"github.com/droverhq/drover/service/streamclient"
	"github.com/droverhq/drover/utils/backoff"
)

// logsFlags are the flags of `drover logs`.
type logsFlags struct {
	follow, timestamps, stdout, stderr bool
	since, until, grep, tail           string
}

// logsTries is how often a log that is not followed is taken up again before that is given up.
const logsTries = 5

func (a *app) logsCommand() *cobra.Command {
	var o logsFlags
	cmd := &cobra.Command{
		Use:   "logs CONTAINER",
		Short: "Show the output of a container",
		Long: `Shows what a container has written, its standard output on standard output and its standard error on standard error. -f
goes on until the container ends. --grep is looked for on the host: lines that do not match do not travel. A connection
that is lost is made again, and the log goes on behind the last line that was shown.

--output json prints one JSON object a line.

` + containerRefHelp,
		Example: `  drover logs web
  drover logs -f --since 10m --grep 'ERROR|WARN' web-1/api
  drover logs -n 100 -t db 2>&1 | less`,
		Args: takes("CONTAINER"), ValidArgsFunction: a.completeContainers,
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.BoolVarP(&o.follow, "follow", "f", false, "go on with what is written, until the container ends")
	f.StringVarP(&o.tail, "tail", "n", "all", "last lines, or all")
	f.StringVar(&o.since, "since", "", "from a time, or from a duration ago, as 10m")
	f.StringVar(&o.until, "until", "", "to a time, or to a duration ago")
	f.StringVar(&o.grep, "grep", "", "only lines that match this regular expression (RE2)")
	f.BoolVarP(&o.timestamps, "timestamps", "t", false, "the time in front of each line")
	f.BoolVar(&o.stdout, "stdout", false, "standard output only")
	f.BoolVar(&o.stderr, "stderr", false, "standard error only")
	host := a.addContainerHost(cmd)
	cmd.RunE = a.operate(func(ctx context.Context, c *client.Client, args []string) error {
		return a.logs(ctx, c, args[0], *host, &o)
	})
	return cmd
}

// options checks what the user wants.
func (o *logsFlags) options() (streamclient.LogOptions, error) {
	out := streamclient.LogOptions{
		Stdout: o.stdout, Stderr: o.stderr, Follow: o.follow, Timestamps: o.timestamps, Since: o.since, Until: o.until, Filter: o.grep,
	}
	if _, err := regexp.Compile(o.grep); err != nil {
		return out, usagef("--grep: %w", err)
	}
	for name, text := range map[string]string{"since": o.since, "until": o.until} {
		if _, err := containerlog.ParseTime(text); err != nil {
			return out, usagef("--%s %q is no time like 2026-11-20T13:51:00Z, and no duration like 10m", name, text)
		}
	}
	switch o.tail {
	case "all", "":
	case "0":
		out.Tail = -1
	default:
		n, err := strconv.Atoi(o.tail)
		if err != nil || n < 0 || n > math.MaxInt32 {
			return out, usagef("--tail %q is neither a number of lines nor all", o.tail)
		}
		out.Tail = n
	}
	return out, nil
}

// logView is a line as programs see it.
type logView struct {
	Host      string    `json:"host"`
	Container string    `json:"container"` // name
	Time      time.Time `json:"time"`
	Stream    string    `json:"stream"` // stdout, stderr
	Log       string    `json:"log"`    // without its newline
	Truncated bool      `json:"truncated,omitempty"`
}

func (a *app) logs(ctx context.Context, c *client.Client, ref, host string, o *logsFlags) error {
	opts, err := o.options()
	if err != nil {
		return err
	}
	t, err := a.container(ctx, c, ref, host)
	if err != nil {
		return err
	}
	defer t.streams.Close()
	opts.Gap = func() { a.aside(false, "here entries may be missing") }
	delays := backoff.Policy{First: 200 * time.Millisecond, Max: 5 * time.Second}.Start()
	for failed := 0; ; {
		before := opts.Cursor
		opts.Cursor, err = a.copyLog(ctx, t, opts)
		switch {
		case ctx.Err() != nil && o.follow:
			return nil // the user has seen enough
		case err == nil:
			return nil
		}
		if opts.Cursor != before {
			failed = 0
			delays.Reset()
		}
		// What never began is told at once; what broke off is taken up where it was.
		if opts.Cursor == "" || !lost(err) || isOutput(err) {
			return t.failed(ctx, err)
		}
		if failed++; !o.follow && failed > logsTries {
			return t.failed(ctx, err)
		}
		if failed == 1 {
			a.note("drover: the connection to host %s was lost; the log goes on when it is back", t.Host.DisplayName())
		}
		if backoff.Sleep(ctx, delays.Next()) != nil {
			if o.follow {
				return nil
			}
			return ctx.Err()
		}
	}
}

// outputError is a failure to write what was read.
type outputError struct{ error }

func (e outputError) Unwrap() error { return e.error }

func isOutput(err error) bool {
	var o outputError
	return errors.As(err, &o)
}

// output words the errors of w as ours.
func output(w interface{ Write([]byte) (int, error) }) writerFunc {
	return func(p []byte) (int, error) {
		n, err := w.Write(p)
		if err != nil {
			err = outputError{err}
		}
		return n, err
	}
}

// copyLog shows a log from opts.Cursor on, and returns where it came to.
func (a *app) copyLog(ctx context.Context, t *target, opts streamclient.LogOptions) (cursor string, err error) {
	if !a.out.Structured() {
		return t.streams.Logs(ctx, t.Ref, opts, output(a.env.Stdout), output(a.env.Stderr))
	}
	opts.Join = true
	cursor = opts.Cursor
	for line, err := range t.streams.LogLines(ctx, t.Ref, opts) {
		if err != nil {
			return cursor, err
		}
		if err := a.out.Stream(viewLog(t, &line), func() error { return nil }); err != nil {
			return cursor, outputError{err}
		}
		cursor = line.Cursor
	}
	return cursor, nil
}

func viewLog(t *target, line *service.LogLine) logView {
	return logView{
		Host: t.Host.DisplayName(), Container: t.Name(), Time: line.Time, Stream: line.Stream,
		Log: strings.TrimSuffix(line.Log, "\n"), Truncated: line.Truncated,
	}
}
