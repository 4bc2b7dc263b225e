package cli

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/droverhq/drover/cli/client"
	"github.com/droverhq/drover/cli/ui"
)

// How long a host may be silent: each sign of progress starts it anew.
const (
	askTimeout  = time.Minute
	workTimeout = 30 * time.Minute
)

func (a *app) imageCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "image",
		Short: "Manage the images of a host",
		Long: `Lists, fetches, makes, sends and removes the images of a host. Where more than one host is online, --host names one.
To pull an image on many hosts at once there is 'drover pull'.`,
		Example: `  drover image ls
  drover image pull registry.example.org/shop/api:1.4
  drover image commit web shop/web:patched --change 'ENV MODE=fixed'
  drover image push registry.example.org/shop/web:patched`,
		Args: usage(noSubcommand), RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.imageListCommand(), a.imageInspectCommand(), a.imageHistoryCommand(), a.imagePullCommand(), a.imageTagCommand(),
		a.imagePushCommand(), a.imageBuildCommand(), a.imageSaveCommand(), a.imageLoadCommand(), a.imageCommitCommand(), a.imageImportCommand(), a.imageRemoveCommand(), a.imagePruneCommand())
	return cmd
}

// noSubcommand is the argument check of a command that only has others below it.
func noSubcommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return fmt.Errorf("%s has no command %q", cmd.CommandPath(), args[0])
}

// A hostFlag is --host of a command that works on one host.
type hostFlag struct{ ref string }

func (a *app) addHost(cmd *cobra.Command) *hostFlag {
	h := &hostFlag{}
	cmd.Flags().StringVar(&h.ref, "host", "", "on this host; needed where more than one is online")
	_ = cmd.RegisterFlagCompletionFunc("host", a.completeHosts)
	return h
}

// find returns the host that is meant: the one that is named, or else the only one, or the only one that is online.
func (h *hostFlag) find(ctx context.Context, c *client.Client) (*client.Host, error) {
	if h.ref != "" {
		return c.Host(ctx, h.ref)
	}
	hosts, err := c.Hosts(ctx)
	if err != nil {
		return nil, err
	}
	if len(hosts) == 1 {
		return &hosts[0], nil
	}
	var online []*client.Host
	for i := range hosts {
		if hosts[i].Connection == "online" {
			online = append(online, &hosts[i])
		}
	}
	switch {
	case len(hosts) == 0:
		return nil, errors.New("no host has joined yet; 'drover token create' shows how")
	case len(online) == 0:
		return nil, fmt.Errorf("none of the %d hosts is online", len(hosts))
	case len(online) > 1:
		return nil, usagef("%d hosts are online: name one with --host", len(online))
	}
	return online[0], nil
}

// ask sends an event to a host and draws what it reports meanwhile.
func (a *app) ask(ctx context.Context, c *client.Client, h *client.Host, event string, timeout time.Duration, data, out any) error {
	live := !a.flags.quiet && !a.out.Structured() && isTerminal(a.env.Stderr) && a.env.Getenv("TERM") != "dumb"
	bars := ui.NewBars(a.env.Stderr, live, func() int { return terminalWidth(a.env.Stderr) })
	defer bars.Stop()
	data, giveUp := a.named(ctx, c, h, timeout, data)
	defer giveUp()
	return c.Event(ctx, h.ID, event, data, timeout, func(answer *client.Answer) {
		var detail struct {
			Layers []struct {
				Layer, Status  string
				Current, Total int64
			}
		}
		_ = json.Unmarshal(answer.Data, &detail) // without layers there is the line alone
		list := make([]ui.Bar, 0, len(detail.Layers))
		for _, l := range detail.Layers {
			list = append(list, ui.Bar{Name: l.Layer, Status: l.Status, Current: l.Current, Total: l.Total})
		}
		text := answer.Message
		if answer.Progress > 0 {
			text += fmt.Sprintf("  %d%%", answer.Progress)
		}
		bars.Set(text, list)
	}, out)
}

// named gives work that takes long a name, by which giveUp ends it on the host where the user ended the command.
func (a *app) named(ctx context.Context, c *client.Client, h *client.Host, timeout time.Duration, data any) (named any, giveUp func()) {
	fields, ok := data.(map[string]any)
	if !ok || timeout < workTimeout {
		return data, func() {}
	}
	work := strings.ToLower(rand.Text())
	fields = maps.Clone(fields)
	fields["work"] = work
	return fields, func() {
		if ctx.Err() == nil {
			return
		}
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if err := c.Event(ending, h.ID, "work.cancel", map[string]any{"work": work}, askTimeout, nil, nil); err != nil {
			a.note("it may go on on the host: %v", err)
		}
	}
}

// onHost makes the function of a command that works on one host.
func (a *app) onHost(host *hostFlag, f func(ctx context.Context, c *client.Client, h *client.Host, args []string) error) func(*cobra.Command, []string) error {
	return a.operate(func(ctx context.Context, c *client.Client, args []string) error {
		h, err := host.find(ctx, c)
		if err != nil {
			return err
		}
		return f(ctx, c, h, args)
	})
}

// imageRow is an image of a list as programs see it; its keys stay.
type imageRow struct {
	ID       string    `json:"id"`
	RepoTags []string  `json:"repoTags"`
	Created  time.Time `json:"created"`
	Size     int64     `json:"size"`  // bytes
	InUse    int       `json:"inUse"` // containers
}

func (a *app) imageListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List the images of a host",
		Long: "Lists the images of a host, newest first.", Example: "  drover image ls --host web-1", Args: takes(),
	}
	host := a.addHost(cmd)
	cmd.RunE = a.onHost(host, func(ctx context.Context, c *client.Client, h *client.Host, _ []string) error {
		var answer struct {
			Images []imageRow `json:"images"`
		}
		if err := a.ask(ctx, c, h, "image.list", askTimeout, nil, &answer); err != nil {
			return err
		}
		return a.out.Print(answer.Images, func() error {
			t := &ui.Table{Header: []string{"IMAGE ID", "NAME", "SIZE", "CONTAINERS", "CREATED"}}
			for _, i := range answer.Images {
				if len(i.RepoTags) == 0 {
					i.RepoTags = []string{"<none>"}
				}
				for _, name := range i.RepoTags {
					t.Row(ui.Text(shortImage(i.ID)), ui.Cell{Text: name, Style: ui.Strong}, ui.Text(size(i.Size)), ui.Text(fmt.Sprint(i.InUse)), ui.Text(a.out.Ago(i.Created)))
				}
			}
			return a.out.Table(t)
		})
	})
	return cmd
}

func (a *app) imageInspectCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "inspect IMAGE", Short: "Show all that the engine knows of an image",
		Example: "  drover image inspect nginx:1.29 | jq .Config", Args: takes("IMAGE"),
	}
	host := a.addHost(cmd)
	cmd.RunE = a.onHost(host, func(ctx context.Context, c *client.Client, h *client.Host, args []string) error {
		var answer struct {
			Image json.RawMessage `json:"image"`
		}
		if err := a.ask(ctx, c, h, "image.inspect", askTimeout, map[string]any{"image": args[0]}, &answer); err != nil {
			return err
		}
		return a.out.Print(answer.Image, func() error { return ui.WriteJSON(a.out.Out, answer.Image) })
	})
	return cmd
}

func (a *app) imageHistoryCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "history IMAGE", Short: "Show the steps that an image was made of",
		Example: "  drover image history nginx:1.29", Args: takes("IMAGE"),
	}
	host := a.addHost(cmd)
	cmd.RunE = a.onHost(host, func(ctx context.Context, c *client.Client, h *client.Host, args []string) error {
		var answer struct {
			History []struct {
				ID        string    `json:"id"`
				Created   time.Time `json:"created"`
				CreatedBy string    `json:"createdBy"`
				Comment   string    `json:"comment,omitempty"`
				Tags      []string  `json:"tags,omitempty"`
				Size      int64     `json:"size"` // bytes
			} `json:"history"`
		}
		if err := a.ask(ctx, c, h, "image.history", askTimeout, map[string]any{"image": args[0]}, &answer); err != nil {
			return err
		}
		return a.out.Print(answer.History, func() error {
			t := &ui.Table{Header: []string{"IMAGE ID", "CREATED", "SIZE", "CREATED BY", "COMMENT"}}
			for _, s := range answer.History {
				t.Row(ui.Text(shortImage(s.ID)), ui.Text(a.out.Ago(s.Created)), ui.Text(size(s.Size)), ui.Text(shorten(s.CreatedBy, 60)), ui.Text(s.Comment))
			}
			return a.out.Table(t)
		})
	})
	return cmd
}

// madeImage is an image that something made, or moved.
type madeImage struct {
	ID     string `json:"id,omitempty"`
	Name   string `json:"name,omitempty"`
	Digest string `json:"digest,omitempty"`
	Size   int64  `json:"size,omitempty"`  // bytes
	Bytes  int64  `json:"bytes,omitempty"` // of what was imported
}

// make asks for an image and prints what came of it: its id, or the digest that a registry has of it.
func (a *app) make(ctx context.Context, c *client.Client, h *client.Host, event string, data any) error {
	var answer struct {
		Image madeImage `json:"image"`
	}
	if err := a.ask(ctx, c, h, event, workTimeout, data, &answer); err != nil {
		return err
	}
	return a.printImage(&answer.Image)
}

func (a *app) printImage(image *madeImage) error {
	return a.out.Print(image, func() error {
		text := image.ID
		if text == "" {
			text = image.Digest
		}
		if !a.flags.quiet {
			text = image.Name + "  " + text
		}
		_, err := fmt.Fprintln(a.out.Out, ui.Clean(text))
		return err
	})
}

// shortImage is what people see of an image's id.
func shortImage(id string) string {
	if len(id) > len("sha256:") && id[:len("sha256:")] == "sha256:" {
		id = id[len("sha256:"):]
	}
	return ui.Short(id)
}

func size(n int64) string { return units.HumanSize(float64(n)) }
