package cli

import (
	"context"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/droverhq/drover/cli/client"
	"github.com/droverhq/drover/cli/ui"
)

// hostView is a host as programs see it; its keys stay.
type hostView struct {
	ID       string            `json:"id"`
	Name     string            `json:"name"`
	Hostname string            `json:"hostname"`
	UUID     string            `json:"uuid"`
	State    string            `json:"state"` // online, reconnecting, disconnected
	Engine   string            `json:"engine"`
	Version  string            `json:"version"` // of the agent
	Address  string            `json:"address"`
	Labels   map[string]string `json:"labels"`
	Created  client.Time       `json:"created"`
	LastSeen client.Time       `json:"lastSeen"`
}

func viewHost(h *client.Host) hostView {
	labels := h.Labels
	if labels == nil {
		labels = map[string]string{}
	}
	return hostView{
		ID: h.ID, Name: h.DisplayName(), Hostname: h.Hostname, UUID: h.UUID, State: h.Connection, Engine: h.Engine,
		Version: h.AgentVersion, Address: h.AgentIP, Labels: labels, Created: h.Created, LastSeen: h.LastSeen,
	}
}

// stateStyle colours the state of a host or a container.
func stateStyle(state string) ui.Style {
	switch state {
	case "online", "running", "active":
		return ui.Good
	case "disconnected", "error":
		return ui.Bad
	case "stopped", "removed", "inactive", "exited":
		return ui.Faint
	case "":
		return ui.Plain
	default:
		return ui.Busy
	}
}

func (a *app) hostsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "hosts [HOST...]",
		Aliases: []string{"host"},
		Short:   "List the hosts that joined",
		Long: `Lists the hosts that joined, with the state of their agents: online, reconnecting (it did not answer for a moment) or
disconnected. HOST is a name, an id, or the beginning of a uuid.`,
		Example: "  drover hosts\n  drover hosts --output json\n  drover hosts -q",
		Args:    cobra.ArbitraryArgs,
		RunE: a.operate(func(ctx context.Context, c *client.Client, args []string) error {
			return a.hosts(ctx, c, args)
		}),
		ValidArgsFunction: a.completeHosts,
	}
	remove := &cobra.Command{
		Use: "rm HOST...", Aliases: []string{"remove"}, Short: "Forget hosts",
		Long: `Removes hosts from the server. Their containers run on. An agent that still runs keeps its identity and joins again
with its registration URL; stop it first.`,
		Args: takes("HOST..."),
		RunE: a.operate(func(ctx context.Context, c *client.Client, args []string) error {
			return a.forEach("removing", args, func(ref string) (string, error) {
				h, err := c.Host(ctx, ref)
				if err != nil {
					return "", err
				}
				return h.ID, c.Do(ctx, http.MethodDelete, "hosts/"+h.ID, nil, nil)
			})
		}),
		ValidArgsFunction: a.completeHosts,
	}
	cmd.AddCommand(remove)
	return cmd
}

func (a *app) hosts(ctx context.Context, c *client.Client, refs []string) error {
	var hosts []client.Host
	if len(refs) == 0 {
		all, err := c.Hosts(ctx)
		if err != nil {
			return err
		}
		hosts = all
	}
	for _, ref := range refs {
		h, err := c.Host(ctx, ref)
		if err != nil {
			return err
		}
		hosts = append(hosts, *h)
	}
	views := make([]hostView, len(hosts))
	for i := range hosts {
		views[i] = viewHost(&hosts[i])
	}
	return a.out.Print(views, func() error {
		if len(views) == 0 && !a.flags.quiet {
			_, err := fmt.Fprintln(a.out.Out, "No host has joined yet. 'drover token create' prints the line that a host joins with.")
			return err
		}
		t := &ui.Table{
			Header: []string{"ID", "NAME", "STATE", "ENGINE", "VERSION", "ADDRESS", "LAST SEEN"},
			Shrink: []int{1, 3, 4}, Drop: []int{4},
		}
		for _, v := range views {
			seen := a.out.Ago(v.LastSeen.Time)
			if v.State == "online" {
				seen = "now"
			}
			t.Row(ui.Text(v.ID), ui.Cell{Text: v.Name, Style: ui.Strong}, ui.Cell{Text: v.State, Style: stateStyle(v.State)},
				ui.Text(v.Engine), ui.Text(v.Version), ui.Text(v.Address), ui.Text(seen))
		}
		return a.out.Table(t)
	})
}
