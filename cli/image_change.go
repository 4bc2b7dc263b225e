package cli

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/droverhq/drover/cli/client"
	"github.com/droverhq/drover/cli/ui"
)

func (a *app) imageTagCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "tag IMAGE NAME", Short: "Give an image a second name",
		Example: "  drover image tag shop/api:1.4 registry.example.org/shop/api:1.4", Args: takes("IMAGE", "NAME"),
	}
	host := a.addHost(cmd)
	cmd.RunE = a.onHost(host, func(ctx context.Context, c *client.Client, h *client.Host, args []string) error {
		return a.make(ctx, c, h, "image.tag", map[string]any{"image": args[0], "target": args[1]})
	})
	return cmd
}

func (a *app) imageCommitCommand() *cobra.Command {
	var (
		host            string
		author, message string
		changes         []string
		noPause         bool
	)
	cmd := &cobra.Command{
		Use: "commit CONTAINER IMAGE", Short: "Make an image of a container",
		Long: `Makes an image of a container as it stands, on the container's host. Its processes are frozen meanwhile unless --no-pause
is given. --change takes Dockerfile instructions: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, ONBUILD, USER, VOLUME, WORKDIR.

` + containerRefHelp,
		Example: `  drover image commit web shop/web:patched --change 'CMD ["/bin/app"]' --change 'ENV MODE=fixed'`,
		Args:    takes("CONTAINER", "IMAGE"), ValidArgsFunction: a.completeContainers,
		RunE: a.operate(func(ctx context.Context, c *client.Client, args []string) error {
			only, err := hostID(ctx, c, host)
			if err != nil {
				return err
			}
			found, err := c.Container(ctx, args[0], only)
			if err != nil {
				return err
			}
			if found.ExternalID == "" {
				return fmt.Errorf("container %s has not been created on its host yet", found.Name)
			}
			return a.make(ctx, c, &client.Host{ID: found.HostID}, "image.commit", map[string]any{
				"container": found.ExternalID, "image": args[1], "author": author, "comment": message, "changes": changes, "noPause": noPause,
			})
		}),
	}
	f := cmd.Flags()
	f.StringVar(&host, "host", "", "look on this host only")
	_ = cmd.RegisterFlagCompletionFunc("host", a.completeHosts)
	f.StringArrayVarP(&changes, "change", "c", nil, "Dockerfile instruction; repeat for several")
	f.StringVarP(&message, "message", "m", "", "comment in the image's history")
	f.StringVar(&author, "author", "", "who made it")
	f.BoolVar(&noPause, "no-pause", false, "let the processes run on meanwhile")
	return cmd
}

func (a *app) imageImportCommand() *cobra.Command {
	var (
		changes           []string
		message, platform string
	)
	cmd := &cobra.Command{
		Use: "import PATH IMAGE", Short: "Make an image of a root file system on the host",
		Long: `Makes an image of a root file system that is on the host: a tar, plain or packed with gzip, bzip2 or zstd, or a directory
such as debootstrap makes. PATH is of the host and must be under its app.images.import-roots; "-" is a tar on standard input
of this machine. The digest that --output json shows is that of the tar on the host.`,
		Example: `  zstd -dc rootfs.tar.zst | drover image import - base/trixie:2026-11
  drover image import /srv/rootfs/trixie.tar.zst base/trixie:2026-11 --change 'CMD ["/bin/bash"]'`,
		Args: takes("PATH", "IMAGE"),
	}
	host := a.addHost(cmd)
	f := cmd.Flags()
	f.StringArrayVarP(&changes, "change", "c", nil, "Dockerfile instruction; repeat for several")
	f.StringVarP(&message, "message", "m", "", "comment in the image's history")
	f.StringVar(&platform, "platform", "", "of what is imported, as linux/arm64; empty: the host's")
	cmd.RunE = a.onHost(host, func(ctx context.Context, c *client.Client, h *client.Host, args []string) error {
		if args[0] == "-" {
			return a.importStdin(ctx, c, h, url.Values{"image": {args[1]}, "comment": {message}, "change": changes, "platform": {platform}})
		}
		return a.make(ctx, c, h, "image.import", map[string]any{
			"path": args[0], "image": args[1], "comment": message, "changes": changes, "platform": platform,
		})
	})
	return cmd
}

// importStdin makes an image of the root file system on standard input.
func (a *app) importStdin(ctx context.Context, c *client.Client, h *client.Host, query url.Values) error {
	source, total, err := a.inputFile("-")
	if err != nil {
		return err
	}
	bars := a.newTransferBars()
	defer bars.stop()
	var answer struct {
		Image madeImage `json:"image"`
	}
	if err := c.ImportImage(ctx, h.ID, query, &countingReader{r: source, each: sending(bars, total)}, &answer); err != nil {
		return err
	}
	bars.stop()
	return a.printImage(&answer.Image)
}

func (a *app) imageRemoveCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "rm IMAGE...", Aliases: []string{"remove"}, Short: "Remove images of a host",
		Long: `Removes names of images, and each image with its last name. One that a container uses is not removed; --force removes it
where the container is stopped.`,
		Example: "  drover image rm shop/api:1.3 shop/api:1.2", Args: takes("IMAGE..."),
	}
	host := a.addHost(cmd)
	cmd.Flags().BoolVarP(&force, "force", "f", false, "also an image of stopped containers, or with several names")
	cmd.RunE = a.onHost(host, func(ctx context.Context, c *client.Client, h *client.Host, args []string) error {
		type removed struct {
			Image    string   `json:"image"`
			Untagged []string `json:"untagged"`
			Deleted  []string `json:"deleted"`
		}
		views := make([]removed, 0, len(args))
		var failed error
		for _, image := range args {
			var answer struct {
				Removed removed `json:"removed"`
			}
			if failed = a.ask(ctx, c, h, "image.remove", workTimeout, map[string]any{"image": image, "force": force}, &answer); failed != nil {
				break
			}
			answer.Removed.Image = image
			views = append(views, answer.Removed)
		}
		err := a.out.Print(views, func() error {
			for _, v := range views {
				for _, line := range append(v.Untagged, v.Deleted...) {
					if _, err := fmt.Fprintln(a.out.Out, ui.Clean(line)); err != nil {
						return err
					}
				}
			}
			return nil
		})
		if failed != nil {
			return failed
		}
		return err
	})
	return cmd
}

func (a *app) imagePruneCommand() *cobra.Command {
	var (
		all, yes bool
		until    string
		filters  []string
	)
	cmd := &cobra.Command{
		Use: "prune", Short: "Remove the images of a host that no container uses",
		Long: `Shows which images would be removed, and how many bytes at least that frees; --yes removes them. Without --all only images
without a name are meant. An image of any container, running or not, always stays.`,
		Example: `  drover image prune
  drover image prune --all --until 240h --filter label!=keep --yes`,
		Args: takes(),
	}
	host := a.addHost(cmd)
	f := cmd.Flags()
	f.BoolVarP(&all, "all", "a", false, "images with a name too")
	f.BoolVarP(&yes, "yes", "y", false, "remove them")
	f.StringVar(&until, "until", "", "made before this time, or this long ago, as 240h")
	f.StringArrayVar(&filters, "filter", nil, "label=K, label=K=V, label!=K or label!=K=V; repeat for several")
	cmd.RunE = a.onHost(host, func(ctx context.Context, c *client.Client, h *client.Host, _ []string) error {
		data := map[string]any{"all": all, "until": until, "dryRun": !yes}
		labels, not := []string{}, []string{}
		for _, filter := range filters {
			if l, ok := strings.CutPrefix(filter, "label="); ok {
				labels = append(labels, l)
			} else if l, ok := strings.CutPrefix(filter, "label!="); ok {
				not = append(not, l)
			} else {
				return usagef("--filter %q is none of label=..., label!=...", filter)
			}
		}
		data["labels"], data["notLabels"] = labels, not
		return a.prune(ctx, c, h, data, yes)
	})
	return cmd
}

func (a *app) prune(ctx context.Context, c *client.Client, h *client.Host, data any, yes bool) error {
	var answer struct {
		Prune struct {
			Images []struct {
				ID       string    `json:"id"`
				RepoTags []string  `json:"repoTags"`
				Created  time.Time `json:"created"`
				Size     int64     `json:"size"`   // bytes
				Unique   int64     `json:"unique"` // bytes that no other image shares
			} `json:"images"`
			Untagged []string `json:"untagged"`
			Deleted  []string `json:"deleted"`
			Bytes    int64    `json:"bytes"`
		} `json:"prune"`
	}
	if err := a.ask(ctx, c, h, "image.prune", workTimeout, data, &answer); err != nil {
		return err
	}
	p := &answer.Prune
	return a.out.Print(p, func() error {
		t := &ui.Table{Header: []string{"IMAGE ID", "NAME", "SIZE", "FREES", "CREATED"}}
		for _, i := range p.Images {
			t.Row(ui.Text(shortImage(i.ID)), ui.Text(strings.Join(i.RepoTags, ", ")), ui.Text(size(i.Size)), ui.Text(size(i.Unique)), ui.Text(a.out.Ago(i.Created)))
		}
		if err := a.out.Table(t); err != nil {
			return err
		}
		if yes {
			a.note("%d images removed, %s freed", len(p.Images), size(p.Bytes))
		} else {
			a.note("%d images would go and free at least %s; --yes removes them", len(p.Images), size(p.Bytes))
		}
		return nil
	})
}
