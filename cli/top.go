package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/droverhq/drover/cli/client"
	"github.com/droverhq/drover/cli/ui"
)

// topView is a list of processes as programs see it.
type topView struct {
	Host      string     `json:"host"`
	Container string     `json:"container"` // name
	Titles    []string   `json:"titles"`
	Processes [][]string `json:"processes"` // a value for each title
}

func (a *app) topCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "top [flags] CONTAINER [PS OPTIONS...]",
		Short: "Show the processes of a container",
		Long: `Shows the processes of a running container as ps on its host sees them, with the host's process ids. What follows CONTAINER
are options of ps.

` + containerRefHelp,
		Example:           "  drover top web\n  drover top web-1/db -o pid,rss,args",
		Args:              takes("CONTAINER..."),
		ValidArgsFunction: a.completeRunning,
	}
	cmd.Flags().SetInterspersed(false)
	host := a.addContainerHost(cmd)
	cmd.RunE = a.operate(func(ctx context.Context, c *client.Client, args []string) error {
		t, err := a.container(ctx, c, args[0], *host)
		if err != nil {
			return err
		}
		defer t.streams.Close()
		return a.top(ctx, t, args[1:])
	})
	return cmd
}

func (a *app) top(ctx context.Context, t *target, args []string) error {
	titles, rows, err := t.streams.Top(ctx, t.Ref, args...)
	if err != nil {
		return t.failed(ctx, err)
	}
	return a.out.Print(topView{t.Host.DisplayName(), t.Name(), titles, rows}, func() error {
		table := &ui.Table{Header: titles}
		if len(titles) > 0 {
			table.Shrink = []int{len(titles) - 1}
		}
		for _, r := range rows {
			cells := make([]ui.Cell, len(titles))
			for i := range min(len(r), len(titles)) {
				cells[i] = ui.Text(r[i])
			}
			table.Row(cells...)
		}
		return a.out.Table(table)
	})
}
