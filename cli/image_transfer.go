package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/distribution/reference"
	"github.com/spf13/cobra"

	"github.com/droverhq/drover/cli/client"
)

// maxPassword bounds what is read from standard input as a password.
const maxPassword = 64 << 10

// loginFlags are a credential of a registry. A password is never an argument: others read those in the process list.
type loginFlags struct {
	username string
	stdin    bool
}

// The variables that hold passwords of registries.
const (
	registryPasswordEnv = "DROVER_REGISTRY_PASSWORD"
	sourcePasswordEnv   = "DROVER_SOURCE_REGISTRY_PASSWORD"
)

func addLogin(cmd *cobra.Command) *loginFlags {
	l := &loginFlags{}
	cmd.Flags().StringVar(&l.username, "username", "", "user of the registry; the password is in "+registryPasswordEnv+", or:")
	cmd.Flags().BoolVar(&l.stdin, "password-stdin", false, "read the password from standard input")
	return l
}

// credential returns what an event takes as credential, nil if there is none. It is for the registry of host alone.
func (a *app) credential(l *loginFlags, host string) (map[string]string, error) {
	if l.username == "" {
		if l.stdin {
			return nil, usagef("--password-stdin needs --username")
		}
		return nil, nil
	}
	password := a.env.Getenv(registryPasswordEnv)
	if l.stdin {
		b, err := io.ReadAll(io.LimitReader(a.env.Stdin, maxPassword+1))
		if err != nil {
			return nil, fmt.Errorf("password from standard input: %w", err)
		}
		if len(b) > maxPassword {
			return nil, errors.New("the password on standard input is too long")
		}
		password = strings.TrimRight(string(b), "\r\n")
	}
	if password == "" {
		return nil, usagef("there is no password: set %s or use --password-stdin", registryPasswordEnv)
	}
	return map[string]string{"username": l.username, "password": password, "serverAddress": host}, nil
}

// registryFlags say how registries are reached by the host's agent.
type registryFlags struct {
	insecure bool
	caFile   string
}

func addRegistry(cmd *cobra.Command) *registryFlags {
	r := &registryFlags{}
	cmd.Flags().BoolVar(&r.insecure, "insecure", false, "the registry speaks plain HTTP (of this command; not about the server)")
	cmd.Flags().StringVar(&r.caFile, "registry-ca", "", "PEM file with the CA of the registry")
	return r
}

// access adds to an event's data how the registries of hosts are reached.
func (r *registryFlags) access(data map[string]any, hosts ...string) error {
	if r.insecure {
		data["insecure"] = hosts
	}
	if r.caFile != "" {
		pem, err := readPEM(r.caFile)
		if err != nil {
			return err
		}
		data["ca"] = pem
	}
	return nil
}

// registryHost returns the registry of an image, or of a repository.
func registryHost(ref string) (string, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return "", usagef("%q is no image: %v", ref, err)
	}
	return reference.Domain(named), nil
}

func (a *app) imagePullCommand() *cobra.Command {
	var platform string
	cmd := &cobra.Command{
		Use: "pull IMAGE", Short: "Pull an image on a host",
		Long: `Pulls an image on one host and shows each layer. Those who ask for one image at the same time share a pull.
'drover pull' does it on many hosts.`,
		Example: `  drover image pull nginx:1.29
  drover image pull registry.example.org/shop/api:1.4 --username ann --password-stdin < password`,
		Args: takes("IMAGE"),
	}
	host, login := a.addHost(cmd), addLogin(cmd)
	cmd.Flags().StringVar(&platform, "platform", "", "as linux/arm64; empty: the host's")
	cmd.RunE = a.onHost(host, func(ctx context.Context, c *client.Client, h *client.Host, args []string) error {
		data := map[string]any{"image": args[0], "platform": platform}
		if err := a.withLogin(data, login, args[0]); err != nil {
			return err
		}
		return a.make(ctx, c, h, "image.pull", data)
	})
	return cmd
}

func (a *app) imagePushCommand() *cobra.Command {
	var via string
	cmd := &cobra.Command{
		Use: "push IMAGE", Short: "Push an image of a host to its registry",
		Long: `Pushes an image to the registry that its name says, and shows each layer. The host's engine does it; with --via agent the
host's agent does, which needs no setting of the engine: --insecure and --registry-ca are for that way.`,
		Example: `  drover image push registry.example.org/shop/api:1.4
  drover image push --via agent --insecure 10.0.0.5:5000/shop/api:1.4`,
		Args: takes("IMAGE"),
	}
	host, login, access := a.addHost(cmd), addLogin(cmd), addRegistry(cmd)
	cmd.Flags().StringVar(&via, "via", "engine", "engine or agent")
	_ = cmd.RegisterFlagCompletionFunc("via", cobra.FixedCompletions([]string{"engine", "agent"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.RunE = a.onHost(host, func(ctx context.Context, c *client.Client, h *client.Host, args []string) error {
		if via != "engine" && via != "agent" {
			return usagef("--via %q is neither engine nor agent", via)
		}
		if via == "engine" && (access.insecure || access.caFile != "") {
			return usagef("--insecure and --registry-ca are for --via agent; the engine has settings of its own")
		}
		data := map[string]any{"image": args[0], "via": via}
		name, err := registryHost(args[0])
		if err != nil {
			return err
		}
		if err := access.access(data, name); err != nil {
			return err
		}
		if err := a.withLogin(data, login, args[0]); err != nil {
			return err
		}
		return a.make(ctx, c, h, "image.push", data)
	})
	return cmd
}

// withLogin adds the credential for the registry of an image to an event's data.
func (a *app) withLogin(data map[string]any, login *loginFlags, image string) error {
	name, err := registryHost(image)
	if err != nil {
		return err
	}
	credential, err := a.credential(login, name)
	if err == nil && credential != nil {
		data["credential"] = credential
	}
	return err
}
