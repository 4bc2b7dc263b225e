package cli

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/droverhq/drover/cli/client"
	"github.com/droverhq/drover/cli/ui"
)

// tokenView is a registration token as programs see it.
type tokenView struct {
	ID              string      `json:"id"`
	Description     string      `json:"description"`
	State           string      `json:"state"`
	Created         client.Time `json:"created"`
	Expires         client.Time `json:"expires"`
	RegistrationURL string      `json:"registrationUrl,omitempty"`
	Command         string      `json:"command,omitempty"`
}

func (a *app) tokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Make and revoke the tokens that hosts join with",
		Long: `A registration token lets hosts join the server. Who has it can add a host and nothing else: give it an end, and revoke
it when it is not needed any more. Hosts that joined keep their own keys.`,
		Example: "  drover token create\n  drover token create --expires 1h --description 'rack 4' -q\n  drover token revoke 1c7",
		Args:    takes(),
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var (
		expires     time.Duration
		description string
	)
	create := &cobra.Command{
		Use: "create", Short: "Make a token and print the line that a host joins with", Args: takes(),
		Long: "Makes a registration token and prints the docker run line that a host joins with. --quiet prints the registration\nURL alone, for 'drover agent URL'.",
		RunE: a.operate(func(ctx context.Context, c *client.Client, _ []string) error {
			return a.tokenCreate(ctx, c, description, expires)
		}),
	}
	create.Flags().DurationVar(&expires, "expires", 0, "how long it is good for, as 1h; 0 is for ever")
	create.Flags().StringVar(&description, "description", "", "what it is for")
	list := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the tokens", Args: takes(),
		RunE: a.operate(func(ctx context.Context, c *client.Client, _ []string) error { return a.tokenList(ctx, c) }),
	}
	revoke := &cobra.Command{
		Use: "revoke TOKEN...", Aliases: []string{"rm", "remove"}, Short: "Revoke tokens by their ids", Args: takes("TOKEN..."),
		RunE: a.operate(func(ctx context.Context, c *client.Client, args []string) error {
			return a.forEach("revoking", args, func(id string) (string, error) {
				return id, c.Do(ctx, http.MethodDelete, "registrationtokens/"+pathSegment(id), nil, nil)
			})
		}),
	}
	cmd.AddCommand(create, list, revoke)
	return cmd
}

func (a *app) tokenCreate(ctx context.Context, c *client.Client, description string, expires time.Duration) error {
	if expires < 0 || expires > 0 && expires < time.Second {
		return usagef("--expires %s is no time to join in", expires)
	}
	in := struct {
		Description string `json:"description,omitempty"`
		ExpiresIn   int64  `json:"expiresIn,omitempty"` // seconds
	}{description, int64(expires.Seconds())}
	var t client.RegistrationToken
	if err := c.Do(ctx, http.MethodPost, "registrationtokens", in, &t); err != nil {
		return err
	}
	return a.out.Print(viewToken(&t), func() error {
		text := t.Command
		if a.flags.quiet {
			text = t.URL
		}
		_, err := fmt.Fprintln(a.out.Out, text)
		return err
	})
}

func viewToken(t *client.RegistrationToken) tokenView {
	return tokenView{
		ID: t.ID, Description: t.Description, State: t.State.State, Created: t.Created, Expires: t.Expires, RegistrationURL: t.URL, Command: t.Command,
	}
}

func (a *app) tokenList(ctx context.Context, c *client.Client) error {
	list, err := client.List[client.RegistrationToken](ctx, c, "registrationtokens", nil)
	if err != nil {
		return err
	}
	views := make([]tokenView, 0, len(list))
	for i := range list {
		if list[i].State.State != "removed" {
			views = append(views, viewToken(&list[i]))
		}
	}
	return a.out.Print(views, func() error {
		t := &ui.Table{Header: []string{"ID", "STATE", "CREATED", "EXPIRES", "DESCRIPTION"}}
		for _, v := range views {
			until := "never"
			if !v.Expires.IsZero() {
				until = v.Expires.Local().Format(time.DateTime)
			}
			t.Row(ui.Text(v.ID), ui.Cell{Text: v.State, Style: stateStyle(v.State)}, ui.Text(a.out.Ago(v.Created.Time)), ui.Text(until), ui.Text(v.Description))
		}
		return a.out.Table(t)
	})
}
