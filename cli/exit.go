package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/droverhq/drover/cli/client"
)

// The exit codes. A command that runs a process elsewhere returns that process's code instead, or 125 to 127 as docker
// does.
const (
	ExitOK       = 0
	ExitFailed   = 1   // it did not work
	ExitUsage    = 2   // the command line is wrong
	ExitConfig   = 3   // the configuration or the registration script is wrong
	ExitAuth     = 4   // credentials were refused: trying again does not help
	ExitIdentity = 5   // another machine has this host's identity
	ExitRun      = 125 // the container could not be created or started, or the process not be run

	exitCannotInvoke = 126 // the command that should run elsewhere cannot be invoked
	exitNotFound     = 127 // it does not exist there

	ExitInterrupted = 130 // a process elsewhere was left behind by an interrupt
)

// exitHelp documents the codes in the help text.
const exitHelp = `Exit codes:
  0  ok                        4  credentials refused
  1  it did not work           5  another machine has this host's identity
  2  wrong usage               125  run: no container was started; exec, attach: nothing was run
  3  wrong configuration or    126  exec: the command cannot be invoked
     registration script       127  exec: the command is not found`

// An exitError carries the exit code of an error.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// withExit gives err an exit code.
func withExit(code int, err error) error {
	if err == nil {
		return nil
	}
	return &exitError{code: code, err: err}
}

// usagef returns an error in the command line.
func usagef(format string, args ...any) error {
	return withExit(ExitUsage, fmt.Errorf(format, args...))
}

// exit prints the error of cmd and returns its exit code.
func (a *app) exit(ctx context.Context, cmd *cobra.Command, err error) int {
	if err == nil {
		return ExitOK
	}
	if errors.Is(err, errSilent) {
		return code(err, a.started)
	}
	c := code(err, a.started)
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return c // the user ended it and knows
	}
	fmt.Fprintln(a.env.Stderr, "drover: "+err.Error())
	switch {
	case c == ExitUsage:
		fmt.Fprintf(a.env.Stderr, "Run '%s --help' for usage.\n", cmd.CommandPath())
	case c == ExitAuth && cmd.GroupID == groupOperate:
		fmt.Fprintln(a.env.Stderr, "The key of a context is set by: drover context add NAME --server URL --key-file FILE")
	}
	return c
}

// errSilent ends a command with an exit code when everything was said already.
var errSilent = errors.New("")

// code finds the exit code of err. What fails before a command began is the command line's fault.
func code(err error, started bool) int {
	var coded *exitError
	switch {
	case errors.As(err, &coded):
		return coded.code
	case errors.Is(err, client.ErrUnauthorized):
		return ExitAuth
	case !started:
		return ExitUsage
	default:
		return ExitFailed
	}
}

// usage makes the errors of an argument check usage errors.
func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		return withExit(ExitUsage, check(cmd, args))
	}
}

// takes asks for one argument a name; a last name that ends in "..." stands for one or more.
func takes(names ...string) cobra.PositionalArgs {
	return usage(func(cmd *cobra.Command, args []string) error {
		many := len(names) > 0 && strings.HasSuffix(names[len(names)-1], "...")
		switch {
		case len(args) < len(names):
			return fmt.Errorf("%s needs %s", cmd.CommandPath(), strings.TrimSuffix(names[len(args)], "..."))
		case len(args) > len(names) && !many:
			return fmt.Errorf("%s takes no argument %q", cmd.CommandPath(), args[len(names)])
		}
		return nil
	})
}
