package cli

import (
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/droverhq/drover/cli/client"
)

// maxForwards is how many connections are forwarded at once; more wait to be accepted.
const maxForwards = 256

// A forward is one port that is opened here.
type forward struct {
	local  string // to listen on
	remote int    // in the container
}

func (a *app) forwardCommand() *cobra.Command {
	var address string
	cmd := &cobra.Command{
		Use:     "port-forward CONTAINER [LOCAL:]PORT...",
		Aliases: []string{"forward"},
		Short:   "Open ports of a container on this machine",
		Long: `Listens here, and connects every connection with a TCP port of a container, as it is seen on the container's own network:
the port need not be published, nor anything on the host be reachable. LOCAL 0, or an empty one, is any free port. Ctrl-C
ends it.

` + containerRefHelp,
		Example: `  drover port-forward db 5432
  drover port-forward web-1/web 8080:80 8443:443
  drover port-forward --address 0.0.0.0 web :80`,
		Args: takes("CONTAINER", "PORT..."), ValidArgsFunction: a.completeRunning,
	}
	cmd.Flags().StringVar(&address, "address", "127.0.0.1", "listen on this address; others can connect to all but loopback")
	host := a.addContainerHost(cmd)
	cmd.RunE = a.operate(func(ctx context.Context, c *client.Client, args []string) error {
		forwards, err := parseForwards(address, args[1:])
		if err != nil {
			return err
		}
		t, err := a.container(ctx, c, args[0], *host)
		if err != nil {
			return err
		}
		defer t.streams.Close()
		return a.portForward(ctx, t, forwards)
	})
	return cmd
}

func parseForwards(address string, specs []string) ([]forward, error) {
	port := func(s string, least int) (int, error) {
		n, err := strconv.Atoi(s)
		if err != nil || n < least || n > 65535 {
			return 0, fmt.Errorf("%q is no port from %d to 65535", s, least)
		}
		return n, nil
	}
	var all []forward
	for _, spec := range specs {
		local, remote, two := strings.Cut(spec, ":")
		if !two {
			remote = local
		}
		to, err := port(remote, 1)
		if err != nil {
			return nil, usagef("port-forward %s: %w", spec, err)
		}
		if local == "" {
			local = "0"
		}
		from, err := port(local, 0)
		if err != nil {
			return nil, usagef("port-forward %s: %w", spec, err)
		}
		all = append(all, forward{net.JoinHostPort(address, strconv.Itoa(from)), to})
	}
	return all, nil
}

// forwardView is an open port as programs see it.
type forwardView struct {
	Host      string `json:"host"`
	Container string `json:"container"` // name
	Port      int    `json:"port"`
	Local     string `json:"local"` // address that is listened on
}

func (a *app) portForward(ctx context.Context, t *target, forwards []forward) error {
	var listeners []net.Listener
	defer func() {
		for _, l := range listeners {
			_ = l.Close() // a second time
		}
	}()
	for _, f := range forwards {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", f.local)
		if err != nil {
			return err
		}
		listeners = append(listeners, l)
	}
	for i, l := range listeners {
		v := forwardView{t.Host.DisplayName(), t.Name(), forwards[i].remote, l.Addr().String()}
		err := a.out.Stream(v, func() error {
			text := v.Local
			if !a.flags.quiet {
				text = fmt.Sprintf("%s -> %s:%d", v.Local, t.label(), v.Port)
			}
			_, err := fmt.Fprintln(a.out.Out, text)
			return err
		})
		if err != nil {
			return err
		}
	}
	// A listener that fails ends all of them.
	user := ctx
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var serving sync.WaitGroup
	slots := make(chan struct{}, maxForwards)
	for i, l := range listeners {
		serving.Go(func() {
			<-ctx.Done()
			_ = l.Close()
		})
		serving.Go(func() { cancel(a.accept(ctx, t, l, forwards[i].remote, slots)) })
	}
	serving.Wait()
	if user.Err() != nil {
		return nil // the user has had enough
	}
	return context.Cause(ctx)
}

// accept serves the connections of a listener until ctx ends, and waits for them.
func (a *app) accept(ctx context.Context, t *target, l net.Listener, port int, slots chan struct{}) error {
	var serving sync.WaitGroup
	defer serving.Wait()
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		conn, err := l.Accept()
		if err != nil {
			<-slots
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return err
		}
		serving.Go(func() {
			defer func() { <-slots }()
			defer conn.Close()
			to, err := t.streams.Forward(ctx, t.Ref, port)
			if err != nil {
				if ctx.Err() == nil {
					a.note("drover: port %d: %v", port, t.failed(ctx, err))
				}
				return
			}
			defer to.Close()
			splice(ctx, conn, to)
		})
	}
}

// splice copies both ways, and passes the end of either on, until both have ended or ctx does.
func splice(ctx context.Context, a, b net.Conn) {
	stop := context.AfterFunc(ctx, func() {
		_ = a.Close()
		_ = b.Close()
	})
	defer stop()
	var copying sync.WaitGroup
	half := func(dst, src net.Conn) {
		_, err := io.Copy(dst, src)
		if end, ok := dst.(interface{ CloseWrite() error }); err == nil && ok && end.CloseWrite() == nil {
			return
		}
		_ = dst.Close()
		_ = src.Close()
	}
	copying.Go(func() { half(a, b) })
	copying.Go(func() { half(b, a) })
	copying.Wait()
}
