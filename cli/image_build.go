package cli

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/droverhq/drover/cli/client"
	"github.com/droverhq/drover/cli/ui"
	"github.com/droverhq/drover/runtime/imagetar"
)

// A buildRequest is what a host takes as the first part of a build.
type buildRequest struct {
	Tags        []string                     `json:"tags,omitempty"`
	Remote      string                       `json:"remote,omitempty"`
	Path        string                       `json:"path,omitempty"` // on the host
	Dockerfile  string                       `json:"dockerfile,omitempty"`
	Args        map[string]string            `json:"args,omitempty"`
	Labels      map[string]string            `json:"labels,omitempty"`
	Target      string                       `json:"target,omitempty"`
	NoCache     bool                         `json:"noCache,omitempty"`
	Pull        bool                         `json:"pull,omitempty"`
	Platform    string                       `json:"platform,omitempty"`
	Builder     string                       `json:"builder,omitempty"`
	Credentials map[string]map[string]string `json:"credentials,omitempty"`
}

// buildFlags are what the command line says of a build, as it says it.
type buildFlags struct {
	file         string
	args, labels []string
	onHost       bool
	registry     string
}

func (a *app) imageBuildCommand() *cobra.Command {
	var (
		req   buildRequest
		flags buildFlags
	)
	cmd := &cobra.Command{
		Use: "build DIR|URL|-", Short: "Build an image on a host",
		Long: `Builds an image on a host from a Dockerfile. The context is a directory of this machine, which is sent without what its
.dockerignore excludes; or "-" for a tar, or a Dockerfile alone, on standard input; or the URL of a git repository or a tar,
which the host's engine fetches; or, with --on-host, a directory or tar on the host, under its app.images.import-roots.

BuildKit builds where the host's engine has it. The classic builder does it with --builder classic, and where a registry's
credential is needed: it keeps the image of the steps before one that fails, to be started and looked into.`,
		Example: `  drover image build -t shop/api:1.5 .
  drover image build -t shop/api:1.5 -f docker/api.Dockerfile --build-arg VERSION=1.5 --target release .
  drover image build -t shop/api:1.5 https://git.example.org/shop/api.git#main
  drover image build -t base:1 --on-host /srv/images/base
  generate | drover image build -t shop/api:1.5 -f - .`,
		Args: takes("DIR|URL|-"),
	}
	host, login := a.addHost(cmd), addLogin(cmd)
	f := cmd.Flags()
	f.StringArrayVarP(&req.Tags, "tag", "t", nil, "name of the image; repeat for several")
	f.StringVarP(&flags.file, "file", "f", "", `the Dockerfile, also outside the directory; "-" is standard input; default DIR/Dockerfile`)
	f.StringArrayVar(&flags.args, "build-arg", nil, "K=V, or K for that of the environment; repeat for several")
	f.StringArrayVar(&flags.labels, "label", nil, "K=V; repeat for several")
	f.StringVar(&req.Target, "target", "", "stage to end with")
	f.BoolVar(&req.NoCache, "no-cache", false, "run every step")
	f.BoolVar(&req.Pull, "pull", false, "look for newer base images")
	f.StringVar(&req.Platform, "platform", "", "as linux/arm64; empty: the host's")
	f.StringVar(&req.Builder, "builder", "", "buildkit or classic; empty: the host's choice")
	f.BoolVar(&flags.onHost, "on-host", false, "the directory, or tar, is on the host")
	f.StringVar(&flags.registry, "registry", "", "the registry of base images that --username is for")
	_ = cmd.RegisterFlagCompletionFunc("builder", cobra.FixedCompletions([]string{"buildkit", "classic"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.RunE = a.onHost(host, func(ctx context.Context, c *client.Client, h *client.Host, args []string) error {
		if err := a.buildOptions(&req, &flags, login); err != nil {
			return err
		}
		source, err := a.buildSource(args[0], &req, &flags)
		if err != nil {
			return err
		}
		view := a.newBuildView()
		var counted io.Reader
		if source != nil {
			defer source.Close()
			counted = &countingReader{r: source, each: view.sent}
		}
		result, err := c.Build(ctx, h.ID, &req, counted, view.step)
		view.end(err)
		if err != nil {
			return err
		}
		return a.out.Print(result, func() error {
			text := result.ID
			if !a.flags.quiet && len(result.Tags) > 0 {
				text = strings.Join(result.Tags, " ") + "  " + text
			}
			_, err := fmt.Fprintln(a.out.Out, ui.Clean(text))
			return err
		})
	})
	return cmd
}

// buildOptions checks what the flags say.
func (a *app) buildOptions(req *buildRequest, flags *buildFlags, login *loginFlags) (err error) {
	if req.Builder != "" && req.Builder != "buildkit" && req.Builder != "classic" {
		return usagef("--builder %q is neither buildkit nor classic", req.Builder)
	}
	for _, tag := range req.Tags {
		if _, err := registryHost(tag); err != nil {
			return err
		}
	}
	if req.Args, err = pairs("--build-arg", flags.args, a.env.Getenv); err != nil {
		return err
	}
	if req.Labels, err = pairs("--label", flags.labels, nil); err != nil {
		return err
	}
	if login.username != "" && flags.registry == "" {
		return usagef("--username needs --registry: the one that base images come from")
	}
	credential, err := a.credential(login, flags.registry)
	if credential != nil {
		req.Credentials = map[string]map[string]string{flags.registry: credential}
	}
	return err
}

// pairs reads K=V. A K alone is that of the environment, where getenv says so.
func pairs(flag string, list []string, getenv func(string) string) (map[string]string, error) {
	out := make(map[string]string, len(list))
	for _, p := range list {
		k, v, ok := strings.Cut(p, "=")
		switch {
		case k == "" || !ok && getenv == nil:
			return nil, usagef("%s %q is not K=V", flag, p)
		case !ok:
			if v = getenv(k); v == "" {
				continue
			}
		}
		out[k] = v
	}
	return out, nil
}

// urlPattern tells a URL from a directory.
var urlPattern = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^(https?://|git://|ssh://|git@|github\.com/)`) })

// buildSource opens the context that is sent, nil if none is. The caller closes it.
func (a *app) buildSource(where string, req *buildRequest, flags *buildFlags) (io.ReadCloser, error) {
	switch {
	case flags.onHost:
		req.Path, req.Dockerfile = where, flags.file
		return nil, refuseStdin(flags)
	case urlPattern().MatchString(where):
		req.Remote, req.Dockerfile = where, flags.file
		return nil, refuseStdin(flags)
	case where == "-":
		if err := refuseStdin(flags); err != nil {
			return nil, err
		}
		req.Dockerfile = flags.file
		return a.stdinContext()
	}
	dir, err := os.Open(where)
	if err != nil {
		return nil, fmt.Errorf("context: %w", err)
	}
	src := imagetar.ContextSource{Dir: dir, Owner: true}
	if flags.file != "" {
		closer, err := a.dockerfile(where, flags.file, &src)
		if err != nil {
			return nil, errors.Join(err, dir.Close())
		}
		defer closer()
	}
	stream, name, err := imagetar.Context(src)
	req.Dockerfile = name
	return stream, err
}

func refuseStdin(flags *buildFlags) error {
	if flags.file == "-" {
		return usagef("-f - is for a context that is a directory of this machine")
	}
	return nil
}

// dockerfile finds the Dockerfile that -f names: in the context, or outside.
func (a *app) dockerfile(dir, file string, src *imagetar.ContextSource) (closer func(), err error) {
	if file == "-" {
		src.Outside = a.env.Stdin
		return func() {}, nil
	}
	path := file
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) && !filepath.IsAbs(file) {
		path = filepath.Join(dir, file) // as people write it who think from the context
	}
	inside, err := relative(dir, path)
	if err != nil {
		return nil, err
	}
	if inside != "" {
		src.Dockerfile = filepath.ToSlash(inside)
		return func() {}, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("the Dockerfile: %w", err)
	}
	src.Outside = f
	return func() { f.Close() }, nil
}

// relative is path below dir, or "" if it is not there.
func relative(dir, path string) (string, error) {
	base, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	full, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	rel, err := filepath.Rel(base, full)
	if err != nil || !filepath.IsLocal(rel) {
		return "", nil //nolint:nilerr // it is elsewhere
	}
	return rel, nil
}

// stdinContext is standard input: a tar, packed or not, or a Dockerfile alone.
func (a *app) stdinContext() (io.ReadCloser, error) {
	in := bufio.NewReaderSize(a.env.Stdin, 64<<10)
	head, err := in.Peek(512)
	if len(head) == 0 {
		return nil, errors.Join(errors.New("there is no context on standard input"), ignoreEOF(err))
	}
	if len(head) > 262 && string(head[257:262]) == "ustar" || bytes.HasPrefix(head, []byte{0x1f, 0x8b}) ||
		bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}) || bytes.HasPrefix(head, []byte("BZh")) || bytes.HasPrefix(head, []byte{0xfd, '7', 'z', 'X', 'Z', 0}) {
		return io.NopCloser(in), nil
	}
	const most = 4 << 20
	text, err := io.ReadAll(io.LimitReader(in, most+1))
	if err != nil {
		return nil, err
	}
	if len(text) > most || bytes.IndexByte(text, 0) >= 0 {
		return nil, errors.New("what is on standard input is neither a tar nor a Dockerfile")
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := errors.Join(w.WriteHeader(&tar.Header{Name: "Dockerfile", Mode: 0o644, Size: int64(len(text))}), write(w, text), w.Close()); err != nil {
		return nil, err
	}
	return io.NopCloser(&b), nil
}

func write(w io.Writer, b []byte) error {
	_, err := w.Write(b)
	return err
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// A countingReader tells after each Read how many bytes there were in all.
type countingReader struct {
	r    io.Reader
	n    int64
	each func(total int64)
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	c.each(c.n)
	return n, err
}
