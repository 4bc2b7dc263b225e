package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/droverhq/drover/cli/client"
	"github.com/droverhq/drover/cli/terminal"
	"github.com/droverhq/drover/service/streamclient"
)

const defaultDetachKeys = "ctrl-p,ctrl-q"

// processFlags say what runs in a container.
type processFlags struct {
	user, workdir string
	env, envFiles []string
	privileged    bool
}

func (o *processFlags) add(f *pflag.FlagSet) {
	f.StringArrayVarP(&o.env, "env", "e", nil, "K=V, or K for the value it has here")
	f.StringArrayVar(&o.envFiles, "env-file", nil, "file of K=V lines")
	f.StringVarP(&o.user, "user", "u", "", "NAME|UID[:GROUP|GID]")
	f.StringVarP(&o.workdir, "workdir", "w", "", "working folder")
	f.BoolVar(&o.privileged, "privileged", false, "all rights on the host")
}

// options are those of a process; args are its words.
func (o *processFlags) options(args []string, getenv func(string) string) (streamclient.ExecOptions, error) {
	if len(args) > 0 && args[0] == "--" { // as kubectl has it
		args = args[1:]
	}
	if len(args) == 0 || args[0] == "" {
		return streamclient.ExecOptions{}, usagef("there is no command to run")
	}
	vars, err := readEnvironment(o.envFiles, o.env, getenv)
	if err != nil {
		return streamclient.ExecOptions{}, err
	}
	out := streamclient.ExecOptions{Cmd: args, User: o.user, WorkingDir: o.workdir, Privileged: o.privileged}
	for k, v := range vars {
		out.Env = append(out.Env, k+"="+v)
	}
	slices.Sort(out.Env)
	return out, nil
}

// execFlags are the flags of `drover exec`.
type execFlags struct {
	processFlags

	interactive, tty, detach, keep bool
	detachKeys                     string
	grace                          time.Duration
}

func (a *app) execCommand() *cobra.Command {
	var o execFlags
	cmd := &cobra.Command{
		Use:   "exec [flags] CONTAINER COMMAND [ARG...]",
		Short: "Run a command in a container",
		Long: `Runs a command in a running container, on whichever host that is, as docker exec does: -i passes standard input on, -t gives
the command a terminal. Flags stand before CONTAINER; what follows it belongs to the command.

When this command ends first, because it was interrupted or the connection was lost for good, the one in the container is
ended too: it gets the end of its input, SIGHUP, and SIGKILL after --grace. With --keep it goes on, and the keys ctrl-p
ctrl-q leave it.

` + containerRefHelp + `

The exit code is that of the command; 126 if it cannot be invoked, 127 if it is not found, 125 if nothing was run.`,
		Example: `  drover exec -it web sh
  drover exec web-1/db pg_dump shop > shop.sql
  drover exec -i db psql shop < shop.sql
  drover exec -e DEBUG=1 -u www-data -w /srv web ./manage.py check`,
		Args:              takes("CONTAINER", "COMMAND..."),
		ValidArgsFunction: a.completeRunning,
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.SetInterspersed(false)
	f.BoolVarP(&o.interactive, "interactive", "i", false, "pass standard input on")
	f.BoolVarP(&o.tty, "tty", "t", false, "give it a terminal")
	f.BoolVarP(&o.detach, "detach", "d", false, "start it and leave it alone")
	o.add(f)
	f.BoolVar(&o.keep, "keep", false, "let it go on when this command ends")
	f.DurationVar(&o.grace, "grace", 0, "between SIGHUP and SIGKILL when this command ends first, at most 1m (default 5s)")
	f.StringVar(&o.detachKeys, "detach-keys", defaultDetachKeys, "keys that leave it, with --keep; empty for none")
	host := a.addContainerHost(cmd)
	cmd.RunE = a.operate(func(ctx context.Context, c *client.Client, args []string) error {
		return exitOf(a.exec(ctx, c, args[0], *host, &o, args[1:]))
	})
	return cmd
}

func (a *app) exec(ctx context.Context, c *client.Client, ref, host string, o *execFlags, args []string) error {
	keys, err := detachKeys(o.detachKeys)
	if err != nil {
		return err
	}
	opts, err := o.options(args, a.env.Getenv)
	if err != nil {
		return err
	}
	opts.TTY, opts.Keep, opts.Grace = o.tty, o.keep, o.grace
	switch {
	case o.detach && o.interactive:
		return usagef("--detach and --interactive exclude each other: nobody is there to type")
	case o.grace < 0 || o.grace > time.Minute:
		return usagef("--grace %v is not between 0 and 1m", o.grace)
	case o.interactive && o.tty && !isTerminal(a.env.Stdin):
		return fmt.Errorf("%w: leave -t out to pass on what is not typed", terminal.ErrNoTerminal)
	}
	if !o.keep {
		keys = nil // leaving would end it: then ctrl-p is better the shell's
	}
	t, err := a.container(ctx, c, ref, host)
	if err != nil {
		return err
	}
	defer t.streams.Close()
	if o.detach {
		return a.execDetached(ctx, t, opts)
	}
	s := &session{app: a, interactive: o.interactive, tty: o.tty, keys: keys}
	err = s.run(ctx, func(ctx context.Context, streams streamclient.Streams, size terminal.Size) error {
		opts.Streams = streams
		if size != (terminal.Size{}) {
			opts.Size = &size
		}
		return runProcess(ctx, t, opts)
	})
	if errors.Is(err, terminal.ErrDetached) {
		a.note("\nLeft; it goes on in %s.", t.label())
		return nil
	}
	return err
}

// runProcess runs a process and tells how it ended.
func runProcess(ctx context.Context, t *target, opts streamclient.ExecOptions) error {
	out := &startFailure{w: opts.Stdout}
	opts.Stdout = out
	return processEnd(ctx, t, out.end(t.streams.Exec(ctx, t.Ref, opts)))
}

// processEnd keeps the end of a process as it is, and words everything else.
func processEnd(ctx context.Context, t *target, err error) error {
	var coded *exitError
	if err == nil || isExit(err) || errors.As(err, &coded) {
		return err
	}
	return t.failed(ctx, err)
}

func (a *app) execDetached(ctx context.Context, t *target, opts streamclient.ExecOptions) error {
	d, err := t.streams.ExecDetached(ctx, t.Ref, opts)
	if err != nil {
		return t.failed(ctx, err)
	}
	if err := a.out.Print(d, func() error { return nil }); err != nil {
		return err
	}
	if d.ExitCode != 0 {
		return withExit(d.ExitCode, fmt.Errorf("it ended at once, with exit code %d", d.ExitCode))
	}
	return nil
}
