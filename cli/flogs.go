package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/gorilla/websocket"
	"github.com/spf13/cobra"

	"github.com/droverhq/drover/cli/client"
	"github.com/droverhq/drover/cli/ui"
	"github.com/droverhq/drover/service/logs"
)

// flogsFlags are what `drover flogs` is told.
type flogsFlags struct {
	follow  bool
	grep    string
	since   string
	until   string
	lines   int
	context int
}

func (a *app) flogsCommand() *cobra.Command {
	var o flogsFlags
	cmd := &cobra.Command{
		Use:   "flogs HOST PATH...",
		Short: "Show log files of a host",
		Long: `Shows the end of log files of a host: the last 10 lines, or with --grep every line that matches, or with --since all from
then on. -f goes on with what is written, across rotation. PATH is absolute, or relative to the host's app.logs.root, and
may be a pattern in quotes. The host needs app.logs.port.

The exit code is that of the command on the host: with --grep it is 1 where no line matches.`,
		Example: `  drover flogs web-1 nginx/access.log
  drover flogs web-1 /var/log/app/app.log -f --grep 'ERROR|WARN'
  drover flogs web-1 '/var/log/app/*.log' --since 15m`,
		Args: takes("HOST", "PATH..."),
		RunE: a.operate(func(ctx context.Context, c *client.Client, args []string) error {
			return a.flogs(ctx, c, args[0], args[1:], o)
		}),
		ValidArgsFunction: a.completeHosts,
	}
	f := cmd.Flags()
	f.BoolVarP(&o.follow, "follow", "f", false, "go on with new lines")
	f.StringVar(&o.grep, "grep", "", "only lines that match this extended regular expression")
	f.StringVar(&o.since, "since", "", "from a time, or from a duration ago, as 15m")
	f.StringVar(&o.until, "until", "", "to a time, or to a duration ago")
	f.IntVarP(&o.lines, "lines", "n", 0, "look at this many lines from the end")
	f.IntVarP(&o.context, "context-lines", "C", 0, "lines around each match")
	return cmd
}

// request says what o asks for.
func (o *flogsFlags) request(paths []string) (*logs.Request, error) {
	if o.lines < 0 || o.context < 0 {
		return nil, usagef("a number of lines cannot be negative")
	}
	r := &logs.Request{Files: paths, Filter: o.grep, Follow: o.follow, Since: o.since, Until: o.until, Lines: o.lines, Context: o.context, Mode: "tail"}
	if !o.follow && o.lines == 0 && o.grep+o.since+o.until != "" {
		r.Mode = "cat"
	}
	return r, nil
}

func (a *app) flogs(ctx context.Context, c *client.Client, ref string, paths []string, o flogsFlags) error {
	req, err := o.request(paths)
	if err != nil {
		return err
	}
	h, err := c.Host(ctx, ref)
	if err != nil {
		return err
	}
	conn, stop, err := c.LogSocket(ctx, h.ID, logs.Subprotocol)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer stop()
	if err := conn.WriteJSON(map[string]any{"run": req}); err != nil {
		return fmt.Errorf("host %s: %w", h.DisplayName(), err)
	}
	for {
		kind, message, err := conn.ReadMessage()
		switch {
		case err != nil && ctx.Err() != nil && o.follow:
			return nil // the user has seen enough
		case err != nil && ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return fmt.Errorf("the connection to host %s was lost: %w", h.DisplayName(), err)
		case kind == websocket.BinaryMessage:
			if _, err := a.env.Stdout.Write(message); err != nil {
				return err
			}
			continue
		}
		var n struct {
			Error string
			End   *struct {
				Exit  int
				Error string
			}
		}
		if err := json.Unmarshal(message, &n); err != nil {
			return fmt.Errorf("host %s sent something that is not of %s: %w", h.DisplayName(), logs.Subprotocol, err)
		}
		switch {
		case n.End != nil && n.End.Error != "":
			return withExit(max(n.End.Exit, ExitFailed), errors.New(ui.Clean(n.End.Error)))
		case n.End != nil && n.End.Exit != 0:
			return withExit(n.End.Exit, errSilent)
		case n.End != nil:
			return nil
		case n.Error != "":
			fmt.Fprintln(a.env.Stderr, ui.Clean(n.Error))
		}
	}
}
