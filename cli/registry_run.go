package cli

import (
	"context"
	"fmt"
	"path"
	"strings"

	"github.com/spf13/cobra"

	"github.com/droverhq/drover/cli/client"
	"github.com/droverhq/drover/cli/ui"
)

// registryLabel marks the containers that `drover registry run` made.
const registryLabel = "io.drover.registry"

// registryRunFlags are the flags of `drover registry run`.
type registryRunFlags struct {
	name, host, port, volume, cert, key, htpasswd, restart string
	env                                                    []string
	readOnly                                               bool
}

func (a *app) registryRunCommand() *cobra.Command {
	var o registryRunFlags
	cmd := &cobra.Command{
		Use: "run IMAGE", Short: "Run a registry on a host",
		Long: `Runs a registry as a container, from an image of your choice that is one (registry:2, registry:3, or your own copy), with its
data in a volume, deletion enabled, and, with --tls-cert and --tls-key, or --htpasswd, TLS and passwords. Those files, and a
volume that begins with a slash, are of the host. Prints the container's id.

Without TLS an engine takes the registry only from its own host, or with a setting; see 'drover image push --help'.`,
		Example: `  drover registry run registry:2 --port 5000
  drover registry run registry:2 --host build-1 --volume /srv/registry --port 5000 \
    --tls-cert /etc/ssl/registry.pem --tls-key /etc/ssl/registry.key --htpasswd /etc/registry/htpasswd`,
		Args: takes("IMAGE"),
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.name, "name", "registry", "name of the container")
	f.StringVar(&o.host, "host", "", "on this host")
	f.StringVarP(&o.port, "port", "p", "5000", "[IP:]PORT of the host")
	f.StringVarP(&o.volume, "volume", "v", "", "volume or folder of the host for the data; default: a volume of the container's name")
	f.StringVar(&o.cert, "tls-cert", "", "PEM file on the host with the certificate and what leads to its authority")
	f.StringVar(&o.key, "tls-key", "", "PEM file on the host with its key")
	f.StringVar(&o.htpasswd, "htpasswd", "", "file on the host with users and bcrypt passwords")
	f.StringVar(&o.restart, "restart", "unless-stopped", "no, always, unless-stopped or on-failure[:N]")
	f.StringArrayVarP(&o.env, "env", "e", nil, "K=V, REGISTRY_... of the registry's own configuration; repeat for several")
	f.BoolVar(&o.readOnly, "read-only", false, "take no pushes")
	_ = cmd.RegisterFlagCompletionFunc("host", a.completeHosts)
	cmd.RunE = a.operate(func(ctx context.Context, c *client.Client, args []string) error {
		run, err := o.container()
		if err != nil {
			return err
		}
		return a.runContainer(ctx, c, run, args)
	})
	return cmd
}

// registryPort is where a registry listens in its container.
const registryPort = "5000"

// container is the container that the flags ask for.
func (o *registryRunFlags) container() (*runFlags, error) {
	if (o.cert == "") != (o.key == "") {
		return nil, usagef("--tls-cert and --tls-key belong together")
	}
	if o.port == "" || strings.ContainsAny(o.port, "/ ") {
		return nil, usagef("--port %q is no [IP:]PORT", o.port)
	}
	volume := o.volume
	if volume == "" {
		volume = o.name
	}
	if volume == "" || strings.Contains(volume, ":") {
		return nil, usagef("--volume %q is neither a volume's name nor a folder", volume)
	}
	run := &runFlags{
		name: o.name, host: o.host, restart: o.restart, pull: "missing", labels: []string{registryLabel + "=true"},
		ports: []string{o.port + ":" + registryPort}, volumes: []string{volume + ":/var/lib/registry"},
		env: []string{
			"REGISTRY_HTTP_ADDR=:" + registryPort, "REGISTRY_STORAGE_DELETE_ENABLED=true",
			"REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY=/var/lib/registry",
		},
	}
	if o.readOnly {
		run.env = append(run.env, `REGISTRY_STORAGE_MAINTENANCE_READONLY={"enabled":true}`)
	}
	for _, file := range []struct{ flag, path, inside, variable string }{
		{"--tls-cert", o.cert, "/run/registry/tls.pem", "REGISTRY_HTTP_TLS_CERTIFICATE"},
		{"--tls-key", o.key, "/run/registry/tls.key", "REGISTRY_HTTP_TLS_KEY"},
		{"--htpasswd", o.htpasswd, "/run/registry/htpasswd", "REGISTRY_AUTH_HTPASSWD_PATH"},
	} {
		if file.path == "" {
			continue
		}
		if !path.IsAbs(file.path) || strings.Contains(file.path, ":") {
			return nil, usagef("%s %q is no absolute path on the host", file.flag, file.path)
		}
		run.volumes = append(run.volumes, path.Clean(file.path)+":"+file.inside+":ro")
		run.env = append(run.env, file.variable+"="+file.inside)
	}
	if o.htpasswd != "" {
		run.env = append(run.env, "REGISTRY_AUTH=htpasswd", "REGISTRY_AUTH_HTPASSWD_REALM="+o.name)
	}
	for _, e := range o.env {
		if !strings.Contains(e, "=") {
			return nil, usagef("--env %q is not K=V", e)
		}
	}
	run.env = append(run.env, o.env...)
	return run, nil
}

func (a *app) registryGCCommand() *cobra.Command {
	var (
		host             string
		untagged, dryRun bool
	)
	cmd := &cobra.Command{
		Use: "gc CONTAINER", Short: "Let a registry on a host free what was deleted",
		Long: `Runs the registry's own garbage collection in its container, and restarts it. What 'drover registry rm' deleted frees its
space only then. Nobody should push meanwhile: a layer that no manifest names yet is garbage. --dry-run shows what would go.

` + containerRefHelp,
		Example: "  drover registry gc registry --untagged", Args: takes("CONTAINER"), ValidArgsFunction: a.completeContainers,
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
			var answer struct {
				Collection struct {
					Container string   `json:"container"`
					Manifests int      `json:"manifests"`
					Blobs     int      `json:"blobs"`
					DryRun    bool     `json:"dryRun"`
					Output    []string `json:"output"`
				} `json:"collection"`
			}
			data := map[string]any{"container": found.ExternalID, "dryRun": dryRun, "untagged": untagged}
			if err := a.ask(ctx, c, &client.Host{ID: found.HostID}, "registry.gc", workTimeout, data, &answer); err != nil {
				return err
			}
			return a.out.Print(answer.Collection, func() error {
				verb := "removed"
				if dryRun {
					verb = "would go"
				}
				_, err := fmt.Fprintf(a.out.Out, "%s  %d manifests and %d blobs %s\n", ui.Clean(found.Name), answer.Collection.Manifests, answer.Collection.Blobs, verb)
				return err
			})
		}),
	}
	cmd.Flags().StringVar(&host, "host", "", "look on this host only")
	_ = cmd.RegisterFlagCompletionFunc("host", a.completeHosts)
	cmd.Flags().BoolVar(&untagged, "untagged", false, "manifests that no tag names too")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only tell")
	return cmd
}
