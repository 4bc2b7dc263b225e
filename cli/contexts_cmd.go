package cli

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"

	"github.com/spf13/cobra"

	"github.com/droverhq/drover/cli/ui"
)

// contextView is a context as it is printed: without its secret.
type contextView struct {
	Name      string `json:"name"`
	Server    string `json:"server"`
	AccessKey string `json:"accessKey"`
	Current   bool   `json:"current"`
}

func (a *app) contextCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "context",
		Short: "Choose which server the commands talk to",
		Long: `A context is a server and the key for it. The contexts are in $XDG_CONFIG_HOME/drover/contexts.yaml (default
~/.config/drover), which only its owner may read. 'drover dev' adds one of its own.

The server of a command is, in this order: --server or DROVER_SERVER, --context or DROVER_CONTEXT, the current context.`,
		Example: `  drover context list
  drover context add prod --server https://drover.example.org --key-file prod.key --ca-file ca.pem
  drover context use prod`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	list := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the contexts", Args: takes(),
		RunE: a.run(func(context.Context, []string) error { return a.contextList() }),
	}
	add := &cobra.Command{
		Use: "add NAME", Short: "Add a context, or change one",
		Long: "The first context that is added becomes the current one. Without a key the context is good for a server on which\n" +
			"access control is off.",
		Example: "  drover context add prod --server https://drover.example.org --key-file prod.key\n" +
			"  DROVER_KEY=ACCESS:SECRET drover context add lab --server http://10.0.0.5:8080",
		Args: takes("NAME"),
		RunE: a.run(func(ctx context.Context, args []string) error { return a.contextAdd(ctx, args[0]) }),
	}
	use := &cobra.Command{
		Use: "use NAME", Short: "Make a context the current one", Args: takes("NAME"), ValidArgsFunction: a.completeContexts,
		RunE: a.run(func(_ context.Context, args []string) error {
			f, err := a.loadContexts()
			if err != nil {
				return err
			}
			if f.find(args[0]) == nil {
				return fmt.Errorf("no context %q; there is: %s", args[0], contextNames(f))
			}
			f.Current = args[0]
			return a.saveContexts(f)
		}),
	}
	remove := &cobra.Command{
		Use: "remove NAME", Aliases: []string{"rm"}, Short: "Forget a context", Args: takes("NAME"), ValidArgsFunction: a.completeContexts,
		RunE: a.run(func(_ context.Context, args []string) error {
			f, err := a.loadContexts()
			if err != nil {
				return err
			}
			if f.find(args[0]) == nil {
				return fmt.Errorf("no context %q; there is: %s", args[0], contextNames(f))
			}
			f.Contexts = slices.DeleteFunc(f.Contexts, func(c serverContext) bool { return c.Name == args[0] })
			if f.Current == args[0] {
				f.Current = ""
				a.note("%s was the current context; choose one with 'drover context use NAME'", args[0])
			}
			return a.saveContexts(f)
		}),
	}
	cmd.AddCommand(list, add, use, remove)
	return cmd
}

func (a *app) contextList() error {
	f, err := a.loadContexts()
	if err != nil {
		return err
	}
	views := make([]contextView, 0, len(f.Contexts))
	for _, c := range f.Contexts {
		views = append(views, contextView{Name: c.Name, Server: c.Server, AccessKey: c.AccessKey, Current: c.Name == f.Current})
	}
	return a.out.Print(views, func() error {
		t := &ui.Table{Header: []string{"NAME", "SERVER", "KEY", "CURRENT"}}
		for _, v := range views {
			mark := ui.Cell{}
			if v.Current {
				mark = ui.Cell{Text: "*", Style: ui.Good}
			}
			t.Row(ui.Text(v.Name), ui.Text(v.Server), ui.Text(v.AccessKey), mark)
		}
		return a.out.Table(t)
	})
}

func (a *app) contextAdd(ctx context.Context, name string) error {
	if !regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`).MatchString(name) {
		return usagef("%q is no name for a context: letters, digits, dot, dash and underscore", name)
	}
	f, err := a.loadContexts()
	if err != nil {
		return err
	}
	c := serverContext{Name: name}
	if old := f.find(name); old != nil {
		c = *old
	}
	if server := a.setting(a.flags.server, "DROVER_SERVER"); server != "" {
		c.Server = server
	}
	if c.Server == "" {
		return usagef("say which server: --server URL")
	}
	// target reads the key and the CA from where every command does.
	a.flags.server = c.Server
	t, err := a.target()
	if err != nil {
		return err
	}
	t.Name = name
	cl, err := newClient(t)
	if err != nil {
		return err
	}
	defer cl.Close()
	if t.CAFile != "" {
		// The context must not break when the file moves.
		ca, err := readPEM(t.CAFile)
		if err != nil {
			return withExit(ExitConfig, err)
		}
		t.CAFile, t.CAData = "", ca
	}
	if _, err := cl.Hosts(ctx); err != nil {
		if errors.Is(err, context.Canceled) {
			return err
		}
		a.note("note: %v", err)
	}
	f.put(*t)
	if f.Current == "" {
		f.Current = name
	}
	return a.saveContexts(f)
}
