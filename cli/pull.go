package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/droverhq/drover/cli/client"
	"github.com/droverhq/drover/cli/ui"
)

// pullView is the outcome of a pull on one host.
type pullView struct {
	HostID string `json:"hostId"`
	Host   string `json:"host"`
	Image  string `json:"image"`
	State  string `json:"state"` // done, failed
	Status string `json:"status"`
}

func (a *app) pullCommand() *cobra.Command {
	var hosts []string
	cmd := &cobra.Command{
		Use:   "pull IMAGE",
		Short: "Pull an image on hosts",
		Long: `Pulls an image on every host that is online, or on those that --host names, and waits until all have it. Interrupting
the command does not interrupt the pull.`,
		Example: "  drover pull nginx:1.29\n  drover pull --host web-1 --host web-2 registry.example.org/shop/api:1.4",
		Args:    takes("IMAGE"),
		RunE: a.operate(func(ctx context.Context, c *client.Client, args []string) error {
			return a.pull(ctx, c, args[0], hosts)
		}),
	}
	cmd.Flags().StringArrayVar(&hosts, "host", nil, "on this host; repeat for several")
	_ = cmd.RegisterFlagCompletionFunc("host", a.completeHosts)
	return cmd
}

func (a *app) pull(ctx context.Context, c *client.Client, image string, refs []string) error {
	hosts, err := c.Hosts(ctx)
	if err != nil {
		return err
	}
	names := hostNames(hosts)
	in := struct {
		Image   string   `json:"image"`
		HostIDs []string `json:"hostIds,omitempty"`
	}{Image: image}
	for _, ref := range refs {
		h, err := c.Host(ctx, ref)
		if err != nil {
			return err
		}
		in.HostIDs = append(in.HostIDs, h.ID)
	}
	var task client.PullTask
	if err := c.Do(ctx, http.MethodPost, "pulltasks", in, &task); err != nil {
		return fmt.Errorf("pull %s: %w", image, err)
	}
	p := a.progress()
	p.Set("pulling %s", image)
	task, err = poll(ctx, func() (client.PullTask, bool, error) {
		var now client.PullTask
		if err := c.Do(ctx, http.MethodGet, "pulltasks/"+task.ID, nil, &now); err != nil {
			return now, true, err
		}
		p.Set("pulling %s", describe(client.State{Message: now.Message, Progress: now.Progress}, image))
		return now, now.Transitioning != "yes", nil
	})
	p.Stop()
	if err != nil {
		return fmt.Errorf("pull %s: %w", image, err)
	}
	views := make([]pullView, 0, len(task.Status))
	failed := task.Transitioning == "error"
	for id, status := range task.Status {
		v := pullView{HostID: id, Host: names[id], Image: image, State: "done", Status: status}
		if !slices.Contains([]string{"done", "active", "pulled"}, strings.ToLower(status)) {
			v.State, failed = "failed", true
		}
		views = append(views, v)
	}
	slices.SortFunc(views, func(a, b pullView) int { return strings.Compare(a.Host+a.HostID, b.Host+b.HostID) })
	err = a.out.Print(views, func() error {
		t := &ui.Table{Header: []string{"HOST", "IMAGE", "STATE", "MESSAGE"}}
		for _, v := range views {
			state, message := ui.Cell{Text: v.State, Style: ui.Good}, ""
			if v.State == "failed" {
				state.Style, message = ui.Bad, v.Status
			}
			t.Row(ui.Text(v.Host), ui.Text(v.Image), state, ui.Text(message))
		}
		return a.out.Table(t)
	})
	if failed {
		text := task.Message
		if text == "" {
			text = "it failed on a host"
		}
		return errors.Join(fmt.Errorf("pull %s: %s", image, text), err)
	}
	return err
}
