package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/droverhq/drover/cli/client"
	"github.com/droverhq/drover/cli/terminal"
	"github.com/droverhq/drover/cli/ui"
	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/service/streamclient"
)

// A target is a container and the way to its streams.
type target struct {
	*client.Place
	streams *streamclient.Client
	server  *client.Client
}

// target finds a container. The caller closes its streams.
func (a *app) container(ctx context.Context, c *client.Client, ref, host string) (*target, error) {
	only, err := hostID(ctx, c, host)
	if err != nil {
		return nil, err
	}
	place, err := c.Place(ctx, ref, only)
	if err != nil {
		return nil, err
	}
	streams, err := c.Streams(place.Host.ID)
	if err != nil {
		return nil, err
	}
	return &target{Place: place, streams: streams, server: c}, nil
}

// label is the container for people.
func (t *target) label() string { return ui.Clean(t.Host.DisplayName() + "/" + t.Name()) }

// failed words what a host's stream ended with.
func (t *target) failed(ctx context.Context, err error) error {
	var refused *streamclient.Error
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &refused):
		text := refused.Message
		if len(t.Ref) == idLength { // engines say the whole id
			text = strings.ReplaceAll(text, t.Ref, t.Name())
		}
		return t.server.Explain(ctx, &streamclient.Error{Status: refused.Status, Code: refused.Code, Message: ui.Clean(text)})
	}
	err = t.server.Explain(ctx, err)
	if errors.Is(err, client.ErrUnreachable) {
		return err
	}
	return fmt.Errorf("the connection to host %s was lost: %w", ui.Clean(t.Host.DisplayName()), err)
}

// idLength is that of an engine's id.
const idLength = 64

// lost tells whether trying again may help: the connection broke, or the host is away for a moment.
func lost(err error) bool {
	var refused *streamclient.Error
	if errors.As(err, &refused) {
		return errors.Is(err, runtime.ErrUnavailable)
	}
	return !errors.Is(err, client.ErrUnauthorized)
}

// exitOf is the exit code of a command that runs something elsewhere: that of the process, or ExitRun for what kept it
// from running. What is wrong here keeps its own code.
func exitOf(err error) error {
	var exit *runtime.ExitError
	var coded *exitError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &exit):
		return withExit(exit.Code, errSilent)
	case errors.As(err, &coded), errors.Is(err, client.ErrUnauthorized):
		return err
	case errors.Is(err, context.Canceled):
		return withExit(ExitInterrupted, errSilent) // the user ended it and knows
	}
	return withExit(ExitRun, err)
}

// addContainerHost adds --host to a command that takes a container.
func (a *app) addContainerHost(cmd *cobra.Command) *string {
	host := cmd.Flags().String("host", "", "look on this host only")
	_ = cmd.RegisterFlagCompletionFunc("host", a.completeHosts)
	return host
}

// detachKeys reads the keys that leave a stream.
func detachKeys(s string) ([]byte, error) {
	keys, err := terminal.ParseKeys(s)
	if err != nil {
		return nil, usagef("--detach-keys: %w", err)
	}
	return keys, nil
}
