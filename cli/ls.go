package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/droverhq/drover/cli/client"
	"github.com/droverhq/drover/cli/ui"
	"github.com/droverhq/drover/service/logs"
)

func (a *app) lsCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "ls HOST [PATH]",
		Short:   "List log files of a host",
		Long:    "Lists a folder of log files of a host; without PATH the folders that it serves. The host needs app.logs.port.",
		Example: "  drover ls web-1\n  drover ls web-1 /var/log/app",
		Args:    usage(cobra.RangeArgs(1, 2)),
		RunE: a.operate(func(ctx context.Context, c *client.Client, args []string) error {
			h, err := c.Host(ctx, args[0])
			if err != nil {
				return err
			}
			dir := ""
			if len(args) == 2 {
				dir = args[1]
			}
			return a.ls(ctx, c, h.ID, dir)
		}),
		ValidArgsFunction: a.completeHosts,
	}
}

func (a *app) ls(ctx context.Context, c *client.Client, hostID, dir string) error {
	var list struct{ Data []logs.FileInfo }
	if err := c.Do(ctx, http.MethodGet, client.LogFile(hostID, "files", dir), nil, &list); err != nil {
		return fileError(err)
	}
	return a.out.Print(list.Data, func() error {
		t := &ui.Table{Header: []string{"MODE", "SIZE", "MODIFIED", "NAME"}}
		for _, f := range list.Data {
			name, size := f.Name, bytesText(f.Size)
			if dir == "" {
				name = f.Path
			}
			if f.Type == "directory" {
				name, size = name+"/", ""
			}
			t.Row(ui.Text(f.Mode), ui.Text(size), ui.Text(f.ModTime.Local().Format(time.DateTime)), ui.Text(name))
		}
		return a.out.Table(t)
	})
}

// fileError words what a host says about a file: that it refuses one is not a matter of credentials.
func fileError(err error) error {
	var e *client.APIError
	if errors.As(err, &e) && e.Status == http.StatusForbidden {
		return errors.New(e.Message)
	}
	return err
}

// bytesText is a size for people.
func bytesText(n int64) string {
	const units = "kMGTPE"
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	v, i := float64(n)/1000, 0
	for ; v >= 999.5; i++ {
		v /= 1000
	}
	return fmt.Sprintf("%.3g %cB", v, units[i])
}
