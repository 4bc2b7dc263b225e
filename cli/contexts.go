package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"gopkg.in/yaml.v3"

	"github.com/droverhq/drover/cli/client"
	"github.com/droverhq/drover/utils/atomicfile"
)

// A serverContext is one server that the operator's commands know. It holds a secret.
type serverContext struct {
	Name      string `yaml:"name"`
	Server    string `yaml:"server"`
	AccessKey string `yaml:"accessKey,omitempty"`
	SecretKey string `yaml:"secretKey,omitempty"`
	CAFile    string `yaml:"caFile,omitempty"`
	CAData    string `yaml:"caData,omitempty"` // PEM
	Insecure  bool   `yaml:"insecure,omitempty"`
}

// contextFile is the file of contexts.
type contextFile struct {
	Current  string          `yaml:"current"`
	Contexts []serverContext `yaml:"contexts"`
}

// find returns the context of a name, or nil.
func (f *contextFile) find(name string) *serverContext {
	i := slices.IndexFunc(f.Contexts, func(c serverContext) bool { return c.Name == name })
	if i < 0 {
		return nil
	}
	return &f.Contexts[i]
}

// put adds a context or replaces the one of its name.
func (f *contextFile) put(c serverContext) {
	if old := f.find(c.Name); old != nil {
		*old = c
		return
	}
	f.Contexts = append(f.Contexts, c)
}

// contextPath is where the contexts are.
func (a *app) contextPath() (string, error) {
	if dir := a.env.Getenv("XDG_CONFIG_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "drover", "contexts.yaml"), nil
	}
	if home := a.env.Getenv("HOME"); home != "" {
		return filepath.Join(home, ".config", "drover", "contexts.yaml"), nil
	}
	return "", errors.New("neither XDG_CONFIG_HOME nor HOME is set, so there is no place for the context file")
}

// loadContexts reads the context file; a missing one is empty.
func (a *app) loadContexts() (*contextFile, error) {
	path, err := a.contextPath()
	if err != nil {
		return nil, err
	}
	var f contextFile
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &f, nil
	}
	if err != nil {
		return nil, err
	}
	if err := yaml.Unmarshal(b, &f); err != nil {
		return nil, withExit(ExitConfig, fmt.Errorf("context file %s: %w", path, err))
	}
	return &f, nil
}

// saveContexts writes the context file for its owner alone.
func (a *app) saveContexts(f *contextFile) error {
	path, err := a.contextPath()
	if err != nil {
		return err
	}
	b, err := yaml.Marshal(f)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return atomicfile.Write(path, b, 0o600)
}

// useServer makes c a context and the current one. It returns the name of the one that was current before.
func (a *app) useServer(c serverContext) (before string, err error) {
	f, err := a.loadContexts()
	if err != nil {
		return "", err
	}
	before = f.Current
	f.put(c)
	f.Current = c.Name
	return before, a.saveContexts(f)
}

// target finds the server that an operator's command talks to: flags, then environment, then the context file.
func (a *app) target() (*serverContext, error) {
	var c serverContext
	file, err := a.loadContexts()
	server := a.setting(a.flags.server, "DROVER_SERVER")
	name := a.setting(a.flags.context, "DROVER_CONTEXT")
	switch {
	case server != "":
		c = serverContext{Name: server, Server: server}
		// The key of a context with the same server saves giving it again.
		if err == nil {
			for _, known := range file.Contexts {
				if strings.TrimRight(known.Server, "/") == strings.TrimRight(server, "/") {
					c = known
				}
			}
		}
	case err != nil:
		return nil, err
	default:
		if name == "" {
			name = file.Current
		}
		if name == "" {
			return nil, withExit(ExitConfig, errors.New("no server is known: start one here with 'drover dev', or name one with "+
				"'drover context add NAME --server URL --key-file FILE'"))
		}
		known := file.find(name)
		if known == nil {
			return nil, withExit(ExitConfig, fmt.Errorf("no context %q; there is: %s", name, contextNames(file)))
		}
		c = *known
	}
	key, err := a.key()
	if err != nil {
		return nil, err
	}
	if key != "" {
		access, secret, ok := strings.Cut(key, ":")
		if !ok {
			return nil, withExit(ExitConfig, errors.New("a key has the form ACCESS:SECRET"))
		}
		c.AccessKey, c.SecretKey = access, secret
	}
	if ca := a.setting(a.flags.caFile, "DROVER_CA_FILE"); ca != "" {
		c.CAFile, c.CAData = ca, ""
	}
	c.Insecure = c.Insecure || a.flags.insecure
	return &c, nil
}

// key is the key of flags and environment, "" where none is given.
func (a *app) key() (string, error) {
	file := a.flags.keyFile
	switch {
	case a.flags.key != "":
		return a.flags.key, nil
	case file == "" && a.env.Getenv("DROVER_KEY") != "":
		return a.env.Getenv("DROVER_KEY"), nil
	case file == "":
		file = a.env.Getenv("DROVER_KEY_FILE")
	}
	if file == "" {
		return "", nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return "", withExit(ExitConfig, fmt.Errorf("key file: %w", err))
	}
	return strings.TrimSpace(string(b)), nil
}

func contextNames(f *contextFile) string {
	if len(f.Contexts) == 0 {
		return "none"
	}
	names := make([]string, len(f.Contexts))
	for i, c := range f.Contexts {
		names[i] = c.Name
	}
	return strings.Join(names, ", ")
}

// client returns a client of the target.
func (a *app) client() (*client.Client, error) {
	t, err := a.target()
	if err != nil {
		return nil, err
	}
	return newClient(t)
}

func newClient(t *serverContext) (*client.Client, error) {
	cfg := client.Config{
		Server: t.Server, AccessKey: t.AccessKey, SecretKey: t.SecretKey, Insecure: t.Insecure,
		UserAgent: "drover/" + version, Proxy: proxyFromEnvironment,
	}
	switch {
	case t.CAData != "":
		cfg.CA = []byte(t.CAData)
	case t.CAFile != "":
		b, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, withExit(ExitConfig, fmt.Errorf("CA file: %w", err))
		}
		cfg.CA = b
	}
	c, err := client.New(cfg)
	return c, withExit(ExitConfig, err)
}

// proxyFromEnvironment is HTTP_PROXY and its kin; loopback is never proxied.
func proxyFromEnvironment(r *http.Request) (*url.URL, error) { return http.ProxyFromEnvironment(r) }

func (a *app) completeContexts(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	f, err := a.loadContexts()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	names := make([]string, len(f.Contexts))
	for i, c := range f.Contexts {
		names[i] = c.Name
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// operate makes the function of a command that talks to a server.
func (a *app) operate(f func(ctx context.Context, c *client.Client, args []string) error) func(*cobra.Command, []string) error {
	return a.run(func(ctx context.Context, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		defer c.Close()
		return f(ctx, c, args)
	})
}
