package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/droverhq/drover/cli/client"
	"github.com/droverhq/drover/cli/ui"
	"github.com/droverhq/drover/utils/backoff"
)

// eventView is one change as programs see it.
type eventView struct {
	Time         time.Time       `json:"time"`
	ResourceType string          `json:"resourceType"`
	ResourceID   string          `json:"resourceId"`
	Name         string          `json:"name"`
	State        string          `json:"state"`
	Message      string          `json:"message,omitempty"`
	Resource     json.RawMessage `json:"resource"`
}

// errEnough ends a feed after --count events.
var errEnough = errors.New("enough")

func (a *app) eventsCommand() *cobra.Command {
	var (
		types []string
		count int
	)
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Watch what happens on hosts and containers",
		Long: `Prints every change of a host, a container or another object as it happens, until it is interrupted. When the
connection to the server is lost it comes back; what happened meanwhile is not repeated.

--output json prints one JSON object a line, with the whole object under "resource".`,
		Example: "  drover events\n  drover events --type container --output json | jq -r '.name + \" \" + .state'",
		Args:    takes(),
		RunE: a.operate(func(ctx context.Context, c *client.Client, _ []string) error {
			return a.events(ctx, c, types, count)
		}),
	}
	cmd.Flags().StringSliceVar(&types, "type", nil, "of this type only: host, container, ...")
	cmd.Flags().IntVarP(&count, "count", "n", 0, "end after so many")
	_ = cmd.RegisterFlagCompletionFunc("type", cobra.FixedCompletions([]string{"host", "container", "agent"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (a *app) events(ctx context.Context, c *client.Client, types []string, count int) error {
	seen := 0
	each := func(ch *client.Change) error {
		if len(types) > 0 && !slices.Contains(types, ch.ResourceType) {
			return nil
		}
		if err := a.printEvent(ch); err != nil {
			return err
		}
		if seen++; count > 0 && seen >= count {
			return errEnough
		}
		return nil
	}
	connected := false
	delays := backoff.Policy{First: 500 * time.Millisecond, Max: 10 * time.Second}.Start()
	for {
		lost := connected
		err := c.Watch(ctx, func() {
			if connected {
				a.note("connected again")
			}
			connected = true
			delays.Reset()
		}, each)
		switch {
		case ctx.Err() != nil, errors.Is(err, errEnough):
			return nil
		case !connected, errors.Is(err, client.ErrUnauthorized), err == nil:
			return err
		case !lost:
			a.note("connection lost: %v", err)
		}
		if backoff.Sleep(ctx, delays.Next()) != nil {
			return nil
		}
	}
}

func (a *app) printEvent(ch *client.Change) error {
	var r struct {
		Name, Hostname, State, Connection, TransitioningMessage string
	}
	// A resource of a form of its own is printed with what it has.
	_ = json.Unmarshal(ch.Data.Resource, &r)
	v := eventView{
		Time: time.UnixMilli(ch.Time), ResourceType: ch.ResourceType, ResourceID: ch.ResourceID, Name: r.Name, State: r.State,
		Message: r.TransitioningMessage, Resource: ch.Data.Resource,
	}
	if v.Name == "" {
		v.Name = r.Hostname
	}
	if r.Connection != "" {
		v.State = r.Connection
	}
	return a.out.Stream(v, func() error {
		if a.flags.quiet {
			_, err := fmt.Fprintln(a.out.Out, v.ResourceID)
			return err
		}
		line := fmt.Sprintf("%s  %-10s %-6s %s %s", a.out.Paint(ui.Faint, v.Time.Format("15:04:05")), v.ResourceType, v.ResourceID,
			ui.Clean(v.Name), a.out.Paint(stateStyle(v.State), ui.Clean(v.State)))
		if v.Message != "" {
			line += "  " + ui.Clean(shorten(v.Message, 100))
		}
		_, err := fmt.Fprintln(a.out.Out, strings.TrimRight(line, " "))
		return err
	})
}
