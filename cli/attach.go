package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/droverhq/drover/cli/client"
	"github.com/droverhq/drover/cli/terminal"
	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/service/streamclient"
	"github.com/droverhq/drover/utils/backoff"
)

// attachFlags are the flags of `drover attach`.
type attachFlags struct {
	noStdin, logs bool
	detachKeys    string
}

func (a *app) attachCommand() *cobra.Command {
	var o attachFlags
	cmd := &cobra.Command{
		Use:   "attach CONTAINER",
		Short: "Connect with the main process of a container",
		Long: `Connects this terminal with the main process of a running container: its output from now on, or with --logs from the
beginning, and what is typed here if the container was made with an open input (run -i).

The keys ctrl-p ctrl-q leave, and so does an interrupt where the container has no terminal: it runs on. Where it has one,
Ctrl-C is a key like any other, and ends most programs.

` + containerRefHelp + `

The exit code is that of the container if it ends meanwhile, and 125 if there was nothing to attach to.`,
		Example: "  drover attach web\n  drover attach --logs --no-stdin web-1/worker",
		Args:    takes("CONTAINER"), ValidArgsFunction: a.completeRunning,
	}
	f := cmd.Flags()
	f.BoolVar(&o.noStdin, "no-stdin", false, "do not pass standard input on")
	f.BoolVar(&o.logs, "logs", false, "show the output so far first")
	f.StringVar(&o.detachKeys, "detach-keys", defaultDetachKeys, "keys that leave; empty for none")
	host := a.addContainerHost(cmd)
	cmd.RunE = a.operate(func(ctx context.Context, c *client.Client, args []string) error {
		return exitOf(a.attach(ctx, c, args[0], *host, &o))
	})
	return cmd
}

// mainProcess is what an engine tells of a container's own process.
type mainProcess struct {
	Config struct{ Tty, OpenStdin bool }
	State  struct {
		Running  bool
		Status   string
		ExitCode int
	}
}

func inspectProcess(ctx context.Context, c *client.Client, t *target) (*mainProcess, error) {
	if t.Container == nil {
		return nil, fmt.Errorf("the server has not heard of container %s yet: %w", t.label(), client.ErrNotFound)
	}
	var raw json.RawMessage
	if err := c.Do(ctx, http.MethodGet, "containers/"+t.Container.ID+"/inspect", nil, &raw); err != nil {
		return nil, err
	}
	var p mainProcess
	if err := json.Unmarshal(raw, &p); err != nil {
		return nil, fmt.Errorf("inspection of %s: %w", t.label(), err)
	}
	return &p, nil
}

func (a *app) attach(ctx context.Context, c *client.Client, ref, host string, o *attachFlags) error {
	keys, err := detachKeys(o.detachKeys)
	if err != nil {
		return err
	}
	t, err := a.container(ctx, c, ref, host)
	if err != nil {
		return err
	}
	defer t.streams.Close()
	p, err := inspectProcess(ctx, c, t)
	switch {
	case err != nil:
		return err
	case !p.State.Running:
		return fmt.Errorf("container %s does not run: it is %s", t.label(), p.State.Status)
	case p.Config.Tty && p.Config.OpenStdin && !o.noStdin && !isTerminal(a.env.Stdin):
		return fmt.Errorf("%w: use --no-stdin to watch alone", terminal.ErrNoTerminal)
	}
	s := &session{app: a, interactive: p.Config.OpenStdin && !o.noStdin, tty: p.Config.Tty, keys: keys}
	err = s.run(ctx, func(ctx context.Context, streams streamclient.Streams, size terminal.Size) error {
		if size != (terminal.Size{}) {
			sizes, later := make(chan terminal.Size), streams.Resize
			ctx, stop := context.WithCancel(ctx)
			var redrawing sync.WaitGroup
			redrawing.Go(func() { redraw(ctx, size, later, sizes) })
			defer redrawing.Wait()
			defer stop()
			streams.Resize = sizes
		}
		err := t.streams.Attach(ctx, t.Ref, streamclient.AttachOptions{Streams: streams, TTY: p.Config.Tty, Logs: o.logs})
		return processEnd(ctx, t, err)
	})
	switch {
	case errors.Is(err, terminal.ErrDetached):
		a.note("\nLeft; %s runs on.", t.label())
		return nil
	case err != nil:
		return err
	}
	return a.ended(ctx, c, t)
}

// redrawPause keeps two sizes apart, of which otherwise only the newer would count.
const redrawPause = 100 * time.Millisecond

// redraw gives a terminal that others may have seen before another size and then its own, so that the program in it
// draws everything anew. Then it passes on the sizes that come later.
func redraw(ctx context.Context, size terminal.Size, later <-chan terminal.Size, to chan<- terminal.Size) {
	defer close(to)
	put := func(size terminal.Size) bool {
		select {
		case to <- size:
			return true
		case <-ctx.Done():
			return false
		}
	}
	other := size
	other.Height++
	if !put(other) || backoff.Sleep(ctx, redrawPause) != nil || !put(size) {
		return
	}
	for {
		select {
		case size, ok := <-later:
			if !ok || !put(size) {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// ended returns the exit code of a container whose output has ended; one that runs on has only closed it.
func (a *app) ended(ctx context.Context, c *client.Client, t *target) error {
	p, err := inspectProcess(ctx, c, t)
	switch {
	case errors.Is(err, client.ErrNotFound):
		return nil // it was made to be removed at its end
	case err != nil:
		return err
	case !p.State.Running && p.State.ExitCode != 0:
		return &runtime.ExitError{Code: p.State.ExitCode}
	}
	return nil
}
