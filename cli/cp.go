package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/droverhq/drover/cli/client"
	"github.com/droverhq/drover/cli/tarcopy"
	"github.com/droverhq/drover/cli/ui"
	"github.com/droverhq/drover/runtime"
)

// copyFlags are the flags of `drover cp`.
type copyFlags struct {
	archive, follow bool
	host            string
}

func (a *app) cpCommand() *cobra.Command {
	var o copyFlags
	cmd := &cobra.Command{
		Use:   "cp [flags] SOURCE DESTINATION",
		Short: "Copy files out of and into containers",
		Long: `Copies a file, or a folder with all that is in it, out of a container or into one, running or not, as docker cp does. SOURCE
and DESTINATION are a PATH on this machine, or CONTAINER:PATH; with CONTAINER: on both sides it is copied from one container
to another, wherever they are.

Onto a folder that exists, the source is copied into it; PATH/. means what is in a folder, without the folder itself. A
destination that does not exist becomes a copy of the source; its parent has to exist. - is a tar stream on standard input
or output. A PATH with a colon in it is written ./PATH.

What is copied belongs to root in a container, and here to you; with --archive to whom it belonged.

` + containerRefHelp,
		Example: `  drover cp web:/etc/nginx/nginx.conf .
  drover cp ./site/. web-1/web:/usr/share/nginx/html
  drover cp db:/var/lib/data - | gzip > data.tar.gz
  drover cp -a old:/srv new:/`,
		Args: takes("SOURCE", "DESTINATION"), ValidArgsFunction: a.completeCopy,
	}
	f := cmd.Flags()
	f.BoolVarP(&o.archive, "archive", "a", false, "keep owners, and the bits that make a program run as its owner")
	f.BoolVarP(&o.follow, "follow-link", "L", false, "if SOURCE is a symbolic link, copy what it points to")
	f.StringVar(&o.host, "host", "", "look on this host only")
	_ = cmd.RegisterFlagCompletionFunc("host", a.completeHosts)
	cmd.RunE = a.operate(func(ctx context.Context, c *client.Client, args []string) error {
		return a.cp(ctx, c, args[0], args[1], &o)
	})
	return cmd
}

// splitPlace takes CONTAINER:PATH apart. What begins like a path of this machine is one.
func splitPlace(arg string) (ref, name string, inside bool) {
	ref, name, inside = strings.Cut(arg, ":")
	if !inside || ref == "" || strings.HasPrefix(arg, ".") || filepath.IsAbs(arg) {
		return "", arg, false
	}
	return ref, name, true
}

// A copyJob is one copy on its way.
type copyJob struct {
	app  *app
	o    *copyFlags
	from *target // nil is this machine
	to   *target

	arrived string // where it all is now
}

func (a *app) cp(ctx context.Context, c *client.Client, source, destination string, o *copyFlags) error {
	fromRef, from, out := splitPlace(source)
	toRef, to, in := splitPlace(destination)
	switch {
	case !out && !in:
		return usagef("neither %q nor %q is in a container; say CONTAINER:PATH", source, destination)
	case from == "" || to == "":
		return usagef("a path is missing: %s %s", source, destination)
	}
	j := &copyJob{app: a, o: o}
	for ref, t := range map[string]**target{fromRef: &j.from, toRef: &j.to} {
		if ref == "" {
			continue
		}
		found, err := a.container(ctx, c, ref, o.host)
		if err != nil {
			return err
		}
		defer found.streams.Close()
		*t = found
	}
	if out && in && fromRef == toRef {
		return usagef("source and destination are in one container; its own cp does that: drover exec %s cp ...", fromRef)
	}
	var totals tarcopy.Totals
	var err error
	switch {
	case out && to == "-":
		return j.stream(ctx, from)
	case in && from == "-":
		totals, err = j.unpackStream(ctx, to)
	default:
		totals, err = j.copy(ctx, from, to)
	}
	if err != nil {
		return err
	}
	view := map[string]any{"source": source, "destination": j.arrived, "files": totals.Files, "bytes": totals.Bytes}
	return a.out.Print(view, func() error {
		if a.flags.quiet {
			return nil
		}
		files := fmt.Sprintf("%d files", totals.Files)
		if totals.Files == 1 {
			files = "1 file"
		}
		_, err := fmt.Fprintf(a.out.Out, "%s  %s, %s\n", ui.Clean(j.arrived), files, bytesText(totals.Bytes))
		return err
	})
}

// stream writes a path of a container to standard output, as it comes.
func (j *copyJob) stream(ctx context.Context, name string) error {
	if isTerminal(j.app.env.Stdout) {
		return usagef("a tar stream is nothing for a terminal; redirect it")
	}
	p, err := j.locate(ctx, name)
	if err != nil {
		return err
	}
	archive, _, err := j.from.streams.Get(ctx, j.from.Ref, p.name)
	if err != nil {
		return j.from.failed(ctx, err)
	}
	defer archive.Close()
	_, err = io.Copy(j.app.env.Stdout, archive)
	return err
}

// unpackStream unpacks standard input into a folder of a container.
func (j *copyJob) unpackStream(ctx context.Context, name string) (tarcopy.Totals, error) {
	if isTerminal(j.app.env.Stdin) {
		return tarcopy.Totals{}, usagef("a tar stream does not come from a terminal; redirect it")
	}
	dst, err := destinationIn(ctx, j.to, name)
	switch {
	case err != nil:
		return tarcopy.Totals{}, err
	case !dst.folder:
		return tarcopy.Totals{}, fmt.Errorf("%s in %s is no folder that a tar stream can be unpacked into", name, j.to.label())
	}
	j.arrived = j.to.label() + ":" + dst.name
	m := j.start(name, 0)
	defer m.stop()
	n := &counter{from: j.app.env.Stdin, moved: m.add}
	err = j.to.streams.Put(ctx, j.to.Ref, dst.name, n)
	return tarcopy.Totals{Bytes: n.total}, j.putError(ctx, err)
}

// A counter counts what is read.
type counter struct {
	from  io.Reader
	moved func(int)
	total int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.from.Read(p)
	c.total += int64(n)
	c.moved(n)
	return n, err
}

// copy copies a path to a path.
func (j *copyJob) copy(ctx context.Context, from, to string) (tarcopy.Totals, error) {
	src, err := j.locate(ctx, from)
	if err != nil {
		return tarcopy.Totals{}, err
	}
	var dst *place
	if j.to != nil {
		dst, err = destinationIn(ctx, j.to, to)
	} else {
		dst, err = destinationHere(to)
	}
	switch {
	case err != nil:
		return tarcopy.Totals{}, err
	case src.folder && dst.exists && !dst.folder:
		return tarcopy.Totals{}, fmt.Errorf("%s is a file, and a folder cannot be copied onto it", to)
	}
	// The name that the source gets: none where only what is in it is copied into a folder.
	dir, name := filepath.Split(dst.name)
	base := path.Base(strings.TrimSuffix(path.Clean(from), "/"))
	switch {
	case dst.folder && src.contents:
		dir, name = dst.name, ""
	case dst.folder && (base == "/" || base == "."):
		dir, name = dst.name, ""
	case dst.folder:
		dir, name = dst.name, base
	}
	total := src.size
	if j.from == nil {
		if total, err = tarcopy.Size(ctx, src.name); err != nil {
			return tarcopy.Totals{}, err
		}
	}
	if src.folder && j.from != nil {
		total = 0 // nobody knows
	}
	m := j.start(from, total)
	defer m.stop()
	options := tarcopy.Options{Owner: j.o.archive, Moved: m.add, Skipped: func(name, why string) {
		m.note("drover: %s was left out: %s", ui.Clean(name), why)
	}}
	if j.to == nil {
		j.arrived = filepath.Join(dir, name)
		return j.get(ctx, src, j.arrived, options)
	}
	j.arrived = j.to.label() + ":" + path.Join(dir, name)
	return j.put(ctx, src, dir, name, options)
}

// get copies out of a container.
func (j *copyJob) get(ctx context.Context, src *place, dst string, o tarcopy.Options) (tarcopy.Totals, error) {
	archive, _, err := j.from.streams.Get(ctx, j.from.Ref, src.name)
	if err != nil {
		return tarcopy.Totals{}, j.from.failed(ctx, err)
	}
	defer archive.Close()
	return tarcopy.Unpack(ctx, archive, src.name, dst, o)
}

// put copies into a container, from here or from another one.
func (j *copyJob) put(ctx context.Context, src *place, dir, name string, o tarcopy.Options) (tarcopy.Totals, error) {
	var archive io.ReadCloser
	if j.from != nil {
		var err error
		if archive, _, err = j.from.streams.Get(ctx, j.from.Ref, src.name); err != nil {
			return tarcopy.Totals{}, j.from.failed(ctx, err)
		}
		defer archive.Close()
	}
	var totals tarcopy.Totals
	var packed error
	r, w := io.Pipe()
	var packing sync.WaitGroup
	packing.Go(func() {
		if archive != nil {
			totals, packed = tarcopy.Rename(ctx, w, archive, src.name, name, o)
		} else {
			totals, packed = tarcopy.Pack(ctx, w, src.name, name, o)
		}
		w.CloseWithError(packed)
	})
	err := j.to.streams.Put(ctx, j.to.Ref, dir, r)
	_ = r.CloseWithError(errPutEnded)
	packing.Wait()
	if packed != nil && !errors.Is(packed, errPutEnded) {
		return totals, packed // what was wrong here is why the other end complained
	}
	return totals, j.putError(ctx, err)
}

// errPutEnded tells the packer that nobody reads any more.
var errPutEnded = errors.New("the other end has ended")

func (j *copyJob) putError(ctx context.Context, err error) error {
	if errors.Is(err, runtime.ErrNotFound) {
		return fmt.Errorf("the folder to copy into does not exist: %w", j.to.failed(ctx, err))
	}
	return j.to.failed(ctx, err)
}
