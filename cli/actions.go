package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/droverhq/drover/cli/client"
	"github.com/droverhq/drover/cli/ui"
)

const containerRefHelp = "CONTAINER is a name, HOST/NAME, an id of the server (1i5), or the beginning of the engine's id."

// act posts an action to the container that ref means and waits until the change is through.
func act(ctx context.Context, c *client.Client, ref, host, action string, input any, wait bool) (*client.Container, error) {
	found, err := c.Container(ctx, ref, host)
	if err != nil {
		return nil, err
	}
	var now client.Container
	if err := c.Do(ctx, http.MethodPost, "containers/"+found.ID+"?action="+action, input, &now); err != nil {
		return found, err
	}
	if !wait {
		return found, nil
	}
	after, err := settle(ctx, c, found.ID, nil)
	if err != nil {
		return found, err
	}
	return after, nil
}

// actionFlags are what start, stop, restart and rm have in common.
type actionFlags struct {
	host    string
	timeout int
	force   bool
}

func (a *app) actionCommand(use, short, long, example, working string, flags func(*cobra.Command, *actionFlags),
	do func(ctx context.Context, c *client.Client, ref, host string, o *actionFlags) (string, error),
) *cobra.Command {
	var o actionFlags
	cmd := &cobra.Command{
		Use: use + " CONTAINER...", Short: short, Long: long + "\n\n" + containerRefHelp, Example: example,
		Args: takes("CONTAINER..."), ValidArgsFunction: a.completeContainers,
		RunE: a.operate(func(ctx context.Context, c *client.Client, args []string) error {
			host, err := hostID(ctx, c, o.host)
			if err != nil {
				return err
			}
			return a.forEach(working, args, func(ref string) (string, error) { return do(ctx, c, ref, host, &o) })
		}),
	}
	cmd.Flags().StringVar(&o.host, "host", "", "look on this host only")
	_ = cmd.RegisterFlagCompletionFunc("host", a.completeHosts)
	if flags != nil {
		flags(cmd, &o)
	}
	return cmd
}

// hostID resolves a host's name; "" stays "".
func hostID(ctx context.Context, c *client.Client, ref string) (string, error) {
	if ref == "" {
		return "", nil
	}
	h, err := c.Host(ctx, ref)
	if err != nil {
		return "", err
	}
	return h.ID, nil
}

// shown is the identifier that --quiet prints.
func shown(c *client.Container) string {
	if c.ExternalID != "" {
		return c.ExternalID
	}
	return c.ID
}

func timeoutFlag(cmd *cobra.Command, o *actionFlags) {
	cmd.Flags().IntVarP(&o.timeout, "timeout", "t", -1, "seconds before it is killed (default: the container's own, else 10)")
}

// stopInput is the input of stop and restart.
type stopInput struct {
	Timeout *int `json:"timeout,omitempty"` // seconds
}

func (o *actionFlags) stop() stopInput {
	if o.timeout < 0 {
		return stopInput{}
	}
	return stopInput{Timeout: &o.timeout}
}

func (a *app) startCommand() *cobra.Command {
	return a.actionCommand("start", "Start containers", "Starts stopped containers. One that runs already is left alone.",
		"  drover start web", "starting", nil,
		func(ctx context.Context, c *client.Client, ref, host string, _ *actionFlags) (string, error) {
			found, err := c.Container(ctx, ref, host)
			if err != nil {
				return "", err
			}
			if found.State.State == "running" {
				return shown(found), nil
			}
			after, err := act(ctx, c, found.ID, host, "start", nil, true)
			if err != nil {
				return "", err
			}
			return shown(after), nil
		})
}

func (a *app) stopCommand() *cobra.Command {
	return a.actionCommand("stop", "Stop containers", "Asks the containers to end, and kills those that do not in time.",
		"  drover stop web\n  drover stop -t 60 db", "stopping", timeoutFlag,
		func(ctx context.Context, c *client.Client, ref, host string, o *actionFlags) (string, error) {
			found, err := c.Container(ctx, ref, host)
			if err != nil {
				return "", err
			}
			if found.State.State == "stopped" {
				return shown(found), nil
			}
			after, err := act(ctx, c, found.ID, host, "stop", o.stop(), true)
			if err != nil {
				return "", err
			}
			return shown(after), nil
		})
}

func (a *app) restartCommand() *cobra.Command {
	return a.actionCommand("restart", "Restart containers", "Stops the containers and starts them again.",
		"  drover restart web", "restarting", timeoutFlag,
		func(ctx context.Context, c *client.Client, ref, host string, o *actionFlags) (string, error) {
			after, err := act(ctx, c, ref, host, "restart", o.stop(), true)
			if err != nil {
				return "", err
			}
			return shown(after), nil
		})
}

func (a *app) rmCommand() *cobra.Command {
	flags := func(cmd *cobra.Command, o *actionFlags) {
		cmd.Flags().BoolVarP(&o.force, "force", "f", false, "running ones too, and no error for what does not exist")
		timeoutFlag(cmd, o)
	}
	cmd := a.actionCommand("rm", "Remove containers", "Removes stopped containers, and with --force running ones.",
		"  drover rm web\n  drover rm -f $(drover ps -q --label app=shop)", "removing", flags,
		func(ctx context.Context, c *client.Client, ref, host string, o *actionFlags) (string, error) {
			found, err := c.Container(ctx, ref, host)
			if o.force && errors.Is(err, client.ErrNotFound) {
				return "", nil
			}
			if err != nil {
				return "", err
			}
			if !o.force && (found.State.State == "running" || found.State.State == "paused") {
				return "", fmt.Errorf("%s is %s: stop it first, or remove it with --force", found.Name, found.State.State)
			}
			in := struct {
				Force bool `json:"force"`
				stopInput
			}{o.force, o.stop()}
			_, err = act(ctx, c, found.ID, host, "remove", in, true)
			if err != nil && !errors.Is(err, errGone) {
				return "", err
			}
			return shown(found), nil
		})
	cmd.Aliases = []string{"remove"}
	return cmd
}

func (a *app) inspectCommand() *cobra.Command {
	var host string
	cmd := &cobra.Command{
		Use:   "inspect CONTAINER...",
		Short: "Show everything the engine knows about containers",
		Long: `Prints what the container's engine knows, in the engine's own form: an object for one container, a list for several. It
is JSON unless --output says yaml, or table for the few facts that matter most.

` + containerRefHelp,
		Example: "  drover inspect web | jq .State\n  drover inspect web --output table",
		Args:    takes("CONTAINER..."), ValidArgsFunction: a.completeContainers,
		RunE: a.operate(func(ctx context.Context, c *client.Client, args []string) error {
			id, err := hostID(ctx, c, host)
			if err != nil {
				return err
			}
			return a.inspect(ctx, c, args, id)
		}),
	}
	cmd.Flags().StringVar(&host, "host", "", "look on this host only")
	_ = cmd.RegisterFlagCompletionFunc("host", a.completeHosts)
	return cmd
}

func (a *app) inspect(ctx context.Context, c *client.Client, refs []string, host string) error {
	all := make([]json.RawMessage, 0, len(refs))
	found := make([]*client.Container, 0, len(refs))
	for _, ref := range refs {
		one, err := c.Container(ctx, ref, host)
		if err != nil {
			return err
		}
		var raw json.RawMessage
		if err := c.Do(ctx, http.MethodGet, "containers/"+one.ID+"/inspect", nil, &raw); err != nil {
			return err
		}
		all = append(all, bytes.TrimSpace(raw))
		found = append(found, one)
	}
	if a.flags.output == "" && a.env.Getenv("DROVER_OUTPUT") == "" {
		a.out.Format = ui.FormatJSON
	}
	var v any = all
	if len(all) == 1 {
		v = all[0]
	}
	return a.out.Print(v, func() error {
		for i, raw := range all {
			if i > 0 {
				fmt.Fprintln(a.out.Out)
			}
			if err := a.summary(found[i], raw); err != nil {
				return err
			}
		}
		return nil
	})
}

// summary prints the few facts of an inspection that matter most.
func (a *app) summary(c *client.Container, raw json.RawMessage) error {
	var in struct {
		ID     string `json:"Id"`
		Config struct {
			Image string
			Cmd   []string
			Env   []string
		}
		State struct {
			Status, Error         string
			ExitCode, Pid         int
			StartedAt, FinishedAt time.Time
		}
		RestartCount    int
		NetworkSettings struct{ IPAddress string }
		Mounts          []struct{ Source, Destination, Mode string }
	}
	if err := json.Unmarshal(raw, &in); err != nil {
		return fmt.Errorf("inspection of %s: %w", c.Name, err)
	}
	t := &ui.Table{Header: []string{"FIELD", "VALUE"}}
	row := func(k, v string) {
		if v != "" {
			t.Row(ui.Cell{Text: k, Style: ui.Faint}, ui.Text(v))
		}
	}
	row("name", c.Name)
	row("id", in.ID)
	row("server id", c.ID)
	row("image", in.Config.Image)
	state := in.State.Status
	if state == "exited" {
		state = fmt.Sprintf("exited with code %d", in.State.ExitCode)
	}
	row("state", state)
	row("error", in.State.Error)
	if in.State.StartedAt.Year() > 1 {
		row("started", a.out.Ago(in.State.StartedAt))
	}
	if in.State.Pid != 0 {
		row("pid", fmt.Sprint(in.State.Pid))
	} else if in.State.FinishedAt.Year() > 1 {
		row("ended", a.out.Ago(in.State.FinishedAt))
	}
	row("restarts", fmt.Sprint(in.RestartCount))
	row("address", in.NetworkSettings.IPAddress)
	for _, p := range c.Ports {
		row("port", p)
	}
	for _, m := range in.Mounts {
		row("mount", m.Source+" -> "+m.Destination)
	}
	if len(in.Config.Cmd) > 0 {
		row("command", fmt.Sprintf("%q", in.Config.Cmd))
	}
	return a.out.Table(t)
}
