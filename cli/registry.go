package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/droverhq/drover/cli/client"
	"github.com/droverhq/drover/cli/ui"
)

func (a *app) registryCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "registry",
		Short: "Look into image registries and change them",
		Long: `Looks into image registries from a host, as the host reaches them, without its engine. Where more than one host is online,
--host names one. --insecure of these commands allows plain HTTP to the registry.`,
		Example: `  drover registry catalog registry.example.org:5000
  drover registry tags registry.example.org:5000/shop/api
  drover registry copy registry.example.org:5000/shop/api:1.4 mirror.example.org/shop/api:1.4`,
		Args: usage(noSubcommand), RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.registryCatalogCommand(), a.registryTagsCommand(), a.registryManifestCommand(), a.registryRemoveCommand(),
		a.registryCopyCommand(), a.registryCheckCommand(), a.registryRunCommand(), a.registryGCCommand())
	return cmd
}

// A registryQuery is a command that asks one registry about one thing.
type registryQuery struct {
	cmd   *cobra.Command
	event string
	field string // of the event's data: registry, repository or image
	data  func() map[string]any
	show  func(a *app, raw *registryAnswer, subject string) error
}

// registryAnswer is the data of the answers; each has one of the fields.
type registryAnswer struct {
	Repositories []string           `json:"repositories"`
	Tags         []string           `json:"tags"`
	Manifest     *registryManifest  `json:"manifest"`
	Deletion     *registryDeletion  `json:"deletion"`
	Registry     *registryReachable `json:"registry"`
}

type registryReachable struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
}

type registryDeletion struct {
	Digest string   `json:"digest"`
	Tags   []string `json:"tags"`
}

type registryManifest struct {
	Reference string `json:"reference"`
	Digest    string `json:"digest"`
	MediaType string `json:"mediaType"`
	Platforms []struct {
		Platform string `json:"platform,omitempty"`
		Digest   string `json:"digest"`
		Size     int64  `json:"size"` // bytes
		Layers   []struct {
			Digest    string `json:"digest"`
			Size      int64  `json:"size"` // bytes
			MediaType string `json:"mediaType"`
		} `json:"layers,omitempty"`
		Config map[string]any `json:"config,omitempty"`
	} `json:"platforms"`
}

func (a *app) query(q registryQuery) *cobra.Command {
	host, login, access := a.addHost(q.cmd), addLogin(q.cmd), addRegistry(q.cmd)
	q.cmd.RunE = a.onHost(host, func(ctx context.Context, c *client.Client, h *client.Host, args []string) error {
		data := map[string]any{}
		if q.data != nil {
			data = q.data()
		}
		data[q.field] = args[0]
		name := args[0]
		if q.field != "registry" {
			var err error
			if name, err = registryHost(args[0]); err != nil {
				return err
			}
		}
		if err := access.access(data, name); err != nil {
			return err
		}
		credential, err := a.credential(login, name)
		if err != nil {
			return err
		}
		if credential != nil {
			data["credential"] = credential
		}
		var answer registryAnswer
		if err := a.ask(ctx, c, h, q.event, workTimeout, data, &answer); err != nil {
			return err
		}
		return q.show(a, &answer, args[0])
	})
	return q.cmd
}

// lines prints one string a line.
func (a *app) lines(list []string) error {
	return a.out.Print(list, func() error {
		for _, s := range list {
			if _, err := fmt.Fprintln(a.out.Out, ui.Clean(s)); err != nil {
				return err
			}
		}
		return nil
	})
}

func (a *app) registryCatalogCommand() *cobra.Command {
	return a.query(registryQuery{event: "registry.catalog", field: "registry", cmd: &cobra.Command{
		Use: "catalog HOST[:PORT]", Short: "List the repositories of a registry",
		Example: "  drover registry catalog --insecure 10.0.0.5:5000", Args: takes("HOST[:PORT]"),
	}, show: func(a *app, r *registryAnswer, _ string) error { return a.lines(r.Repositories) }})
}

func (a *app) registryTagsCommand() *cobra.Command {
	return a.query(registryQuery{event: "registry.tags", field: "repository", cmd: &cobra.Command{
		Use: "tags REPOSITORY", Short: "List the tags of a repository",
		Example: "  drover registry tags registry.example.org/shop/api", Args: takes("REPOSITORY"),
	}, show: func(a *app, r *registryAnswer, _ string) error { return a.lines(r.Tags) }})
}

func (a *app) registryCheckCommand() *cobra.Command {
	return a.query(registryQuery{event: "registry.check", field: "registry", cmd: &cobra.Command{
		Use: "check HOST[:PORT]", Short: "Check that a registry answers and takes the credential",
		Example: "  drover registry check registry.example.org --username ann --password-stdin < password", Args: takes("HOST[:PORT]"),
	}, show: func(a *app, r *registryAnswer, subject string) error {
		return a.out.Print(r.Registry, func() error {
			_, err := fmt.Fprintf(a.out.Out, "%s  ok\n", ui.Clean(subject))
			return err
		})
	}})
}

func (a *app) registryManifestCommand() *cobra.Command {
	return a.query(registryQuery{event: "registry.manifest", field: "image", cmd: &cobra.Command{
		Use: "manifest IMAGE", Short: "Show what an image in a registry is made of",
		Long:    "Shows the platforms, layers and sizes of an image in a registry; --output json has the configurations too.",
		Example: "  drover registry manifest registry.example.org/shop/api:1.4", Args: takes("IMAGE"),
	}, show: func(a *app, r *registryAnswer, _ string) error {
		return a.out.Print(r.Manifest, func() error {
			if r.Manifest == nil {
				return nil
			}
			a.note("%s  %s", ui.Clean(r.Manifest.Digest), ui.Clean(r.Manifest.MediaType))
			t := &ui.Table{Header: []string{"DIGEST", "PLATFORM", "SIZE", "LAYERS"}}
			for _, p := range r.Manifest.Platforms {
				t.Row(ui.Text(p.Digest), ui.Text(p.Platform), ui.Text(size(p.Size)), ui.Text(fmt.Sprint(len(p.Layers))))
			}
			return a.out.Table(t)
		})
	}})
}

func (a *app) registryRemoveCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "rm IMAGE", Aliases: []string{"delete"}, Short: "Delete an image from a registry",
		Long: `Shows the digest that a tag means and all tags of that digest, which go together; --yes deletes them. The registry must
allow deletion, and frees the space when it collects its garbage.`,
		Example: "  drover registry rm registry.example.org/shop/api:1.3 --yes", Args: takes("IMAGE"),
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "delete them")
	return a.query(registryQuery{
		event: "registry.delete", field: "image", cmd: cmd,
		data: func() map[string]any { return map[string]any{"dryRun": !yes} },
		show: func(a *app, r *registryAnswer, _ string) error {
			return a.out.Print(r.Deletion, func() error {
				if r.Deletion == nil {
					return nil
				}
				if _, err := fmt.Fprintf(a.out.Out, "%s  %s\n", ui.Clean(r.Deletion.Digest), ui.Clean(strings.Join(r.Deletion.Tags, ", "))); err != nil {
					return err
				}
				if !yes {
					a.note("these tags would go; --yes deletes them")
				}
				return nil
			})
		},
	})
}

func (a *app) registryCopyCommand() *cobra.Command {
	var sourceUser string
	cmd := &cobra.Command{
		Use: "copy SOURCE TARGET", Aliases: []string{"cp"}, Short: "Copy an image from one registry to another",
		Long: `Copies an image with all its platforms from one registry to another, through the host's agent and without its engine.
--username is of the target. --insecure is about both.`,
		Example: "  drover registry copy registry.example.org/shop/api:1.4 mirror.example.org/shop/api:1.4", Args: takes("SOURCE", "TARGET"),
	}
	host, login, access := a.addHost(cmd), addLogin(cmd), addRegistry(cmd)
	cmd.Flags().StringVar(&sourceUser, "source-username", "", "user of the source; the password is in "+sourcePasswordEnv)
	cmd.RunE = a.onHost(host, func(ctx context.Context, c *client.Client, h *client.Host, args []string) error {
		data := map[string]any{"source": args[0], "target": args[1]}
		from, err := registryHost(args[0])
		if err != nil {
			return err
		}
		to, err := registryHost(args[1])
		if err != nil {
			return err
		}
		if err := access.access(data, from, to); err != nil {
			return err
		}
		if err := a.withLogin(data, login, args[1]); err != nil {
			return err
		}
		if sourceUser != "" {
			password := a.env.Getenv(sourcePasswordEnv)
			if password == "" {
				return usagef("there is no password of the source: set %s", sourcePasswordEnv)
			}
			data["sourceCredential"] = map[string]string{"username": sourceUser, "password": password, "serverAddress": from}
		}
		return a.make(ctx, c, h, "registry.copy", data)
	})
	return cmd
}
