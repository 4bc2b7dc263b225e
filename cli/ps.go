package cli

import (
	"context"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/droverhq/drover/cli/client"
	"github.com/droverhq/drover/cli/ui"
)

// containerView is a container as programs see it; its keys stay.
type containerView struct {
	ID          string            `json:"id"`          // of the server
	ContainerID string            `json:"containerId"` // of the engine
	Name        string            `json:"name"`
	Image       string            `json:"image"`
	State       string            `json:"state"`
	Message     string            `json:"message,omitempty"` // of a change under way, or of what went wrong
	HostID      string            `json:"hostId"`
	Host        string            `json:"host"`
	Ports       []string          `json:"ports"`
	IP          string            `json:"ip"`
	Labels      map[string]string `json:"labels"`
	Native      bool              `json:"native"` // found on the host, not made by the server
	Created     client.Time       `json:"created"`
}

func viewContainer(c *client.Container, hosts map[string]string) containerView {
	v := containerView{
		ID: c.ID, ContainerID: c.ExternalID, Name: c.Name, Image: strings.TrimPrefix(c.Image, "docker:"), State: c.State.State,
		Message: c.Message, HostID: c.HostID, Host: hosts[c.HostID], Ports: c.Ports, IP: c.IP, Labels: c.Labels,
		Native: c.Native, Created: c.Created,
	}
	if v.Labels == nil {
		v.Labels = map[string]string{}
	}
	if v.Ports == nil {
		v.Ports = []string{}
	}
	return v
}

// shownID is what people see of a container's id.
func (v *containerView) shownID() string {
	if v.ContainerID != "" {
		return ui.Short(v.ContainerID)
	}
	return v.ID
}

func (a *app) psCommand() *cobra.Command {
	var (
		all    bool
		host   string
		labels []string
	)
	cmd := &cobra.Command{
		Use:   "ps",
		Short: "List containers of all hosts",
		Long: `Lists the containers of all hosts, newest first: those that run, and those that are on their way or went wrong. --all
adds the stopped ones. Containers that were on a host before it joined are listed too, and can be driven like any other.`,
		Example: `  drover ps
  drover ps --all --host web-1
  drover ps --label app=shop --output json
  drover rm -f $(drover ps -q --label app=shop)`,
		Args: takes(),
		RunE: a.operate(func(ctx context.Context, c *client.Client, _ []string) error {
			return a.ps(ctx, c, all, host, labels)
		}),
	}
	f := cmd.Flags()
	f.BoolVarP(&all, "all", "a", false, "stopped containers too")
	f.StringVar(&host, "host", "", "of this host only")
	f.StringArrayVar(&labels, "label", nil, "with this label, K or K=V; repeat for several")
	_ = cmd.RegisterFlagCompletionFunc("host", a.completeHosts)
	return cmd
}

func (a *app) ps(ctx context.Context, c *client.Client, all bool, host string, labels []string) error {
	query := url.Values{}
	hosts, err := c.Hosts(ctx)
	if err != nil {
		return err
	}
	names := hostNames(hosts)
	only := ""
	if host != "" {
		h, err := c.Host(ctx, host)
		if err != nil {
			return err
		}
		only = h.ID
		query.Set("hostId", only)
	}
	list, err := c.Containers(ctx, query)
	if err != nil {
		return err
	}
	hidden := 0
	views := make([]containerView, 0, len(list))
	for i := range list {
		v := viewContainer(&list[i], names)
		switch {
		case only != "" && v.HostID != only, !hasLabels(v.Labels, labels):
		case !all && v.State == "stopped":
			hidden++
		default:
			views = append(views, v)
		}
	}
	return a.out.Print(views, func() error {
		t := &ui.Table{
			Header: []string{"CONTAINER ID", "NAME", "IMAGE", "STATE", "HOST", "CREATED", "PORTS"},
			Shrink: []int{1, 2, 3, 4, 6}, Drop: []int{5},
		}
		for _, v := range views {
			state := v.State
			if v.Message != "" && (v.State == "error" || strings.HasSuffix(v.State, "ing") && v.State != "running") {
				state += ": " + shorten(v.Message, 40)
			}
			t.Row(ui.Text(v.shownID()), ui.Cell{Text: v.Name, Style: ui.Strong}, ui.Text(v.Image), ui.Cell{Text: state, Style: stateStyle(v.State)},
				ui.Text(v.Host), ui.Text(a.out.Ago(v.Created.Time)), ui.Text(strings.Join(v.Ports, ", ")))
		}
		if err := a.out.Table(t); err != nil {
			return err
		}
		if hidden > 0 && isTerminal(a.env.Stdout) {
			a.note("%d stopped; --all shows them", hidden)
		}
		return nil
	})
}

func hostNames(hosts []client.Host) map[string]string {
	names := make(map[string]string, len(hosts))
	for i := range hosts {
		names[hosts[i].ID] = hosts[i].DisplayName()
	}
	return names
}

func hasLabels(labels map[string]string, want []string) bool {
	return !slices.ContainsFunc(want, func(w string) bool {
		key, value, valued := strings.Cut(w, "=")
		got, ok := labels[key]
		return !ok || valued && got != value
	})
}

func shorten(s string, most int) string {
	s, _, _ = strings.Cut(s, "\n")
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}
