package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/droverhq/drover/cli/client"
	"github.com/droverhq/drover/cli/tarcopy"
	"github.com/droverhq/drover/cli/ui"
	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/service"
)

// copyFlags are the flags of `drover cp`.
type copyFlags struct {
	archive, follow bool
	host            string
}

func (a *app) cpCommand() *cobra.Command {
	var o copyFlags
	cmd := &cobra.Command{
		Use:   "cp CONTAINER:PATH PATH|-  |  cp PATH|- CONTAINER:PATH",
		Short: "Copy files out of and into containers",
		Long: `Copies a file, or a folder with all that is in it, out of a container or into one, running or not, as docker cp does; with
CONTAINER: on both sides, from one container to another, wherever they are.

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

// A place is one end of a copy.
type place struct {
	name     string
	exists   bool
	folder   bool
	contents bool  // PATH/.: what is in it
	size     int64 // of a file
}

// locate finds what is to be copied.
func (j *copyJob) locate(ctx context.Context, name string) (*place, error) {
	p := &place{name: name, exists: true, contents: name == "." || strings.HasSuffix(name, "/.")}
	// A link with a slash behind it means what it points to.
	follow := j.o.follow || p.contents || strings.HasSuffix(name, "/")
	if j.from != nil {
		p.name = path.Clean("/" + name)
		f, err := stat(ctx, j.from, p.name, follow)
		if err != nil {
			return nil, err
		}
		p.name, p.folder, p.size = f.Path, f.Type == "directory", f.Size
	} else {
		p.name = filepath.Clean(name)
		if follow {
			real, err := filepath.EvalSymlinks(p.name)
			if err != nil {
				return nil, err
			}
			p.name = real
		}
		info, err := os.Lstat(p.name)
		if err != nil {
			return nil, err
		}
		p.folder = info.IsDir()
	}
	if !p.folder && (p.contents || strings.HasSuffix(name, "/")) {
		return nil, fmt.Errorf("%s is no folder", name)
	}
	return p, nil
}

// maxLinks is how many symbolic links in a row are followed.
const maxLinks = 16

// stat tells what a path in a container is. With follow, a link is what it points to.
func stat(ctx context.Context, t *target, name string, follow bool) (service.File, error) {
	for range maxLinks {
		f, err := t.streams.Stat(ctx, t.Ref, name)
		if err != nil {
			return f, t.failed(ctx, err)
		}
		if f.Path = name; f.Type != "symlink" || !follow {
			return f, nil
		}
		next := f.LinkTarget
		if !path.IsAbs(next) {
			next = path.Join(path.Dir(name), next)
		}
		name = path.Clean(next)
	}
	return service.File{}, fmt.Errorf("%s in %s: too many symbolic links", name, t.label())
}

// destinationIn finds where in a container something is copied to.
func destinationIn(ctx context.Context, t *target, name string) (*place, error) {
	p := &place{name: path.Clean("/" + name)}
	f, err := stat(ctx, t, p.name, true)
	switch {
	case err == nil:
		p.name, p.exists, p.folder = f.Path, true, f.Type == "directory"
	case !errors.Is(err, runtime.ErrNotFound):
		return nil, err
	}
	return p, p.check(name)
}

// destinationHere finds where on this machine something is copied to.
func destinationHere(name string) (*place, error) {
	p := &place{name: filepath.Clean(name)}
	real, err := filepath.EvalSymlinks(p.name)
	if err == nil {
		p.name = real
		info, err := os.Stat(real)
		if err != nil {
			return nil, err
		}
		p.exists, p.folder = true, info.IsDir()
	} else if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return p, p.check(name)
}

// check refuses what was written as a folder and is none.
func (p *place) check(name string) error {
	if (strings.HasSuffix(name, "/") || strings.HasSuffix(name, "/.")) && !p.folder {
		if p.exists {
			return fmt.Errorf("%s is no folder", name)
		}
		return fmt.Errorf("the folder %s does not exist", name)
	}
	return nil
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

// A meter shows how far a copy is.
type meter struct {
	app   *app
	line  *ui.Progress
	name  string
	total int64 // 0 is unknown
	begun time.Time

	mu    sync.Mutex
	have  int64
	notes []string
}

func (j *copyJob) start(name string, total int64) *meter {
	return &meter{app: j.app, line: j.app.progress(), name: path.Base(name), total: total, begun: time.Now()}
}

// add tells of bytes that were copied.
func (m *meter) add(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.have += int64(n)
	rate := bytesText(int64(float64(m.have) / max(time.Since(m.begun).Seconds(), 0.001)))
	if m.total > 0 {
		m.line.Set("%s %s  %s of %s  %s/s", m.name, bar(m.have, m.total), bytesText(m.have), bytesText(max(m.total, m.have)), rate)
		return
	}
	m.line.Set("%s  %s  %s/s", m.name, bytesText(m.have), rate)
}

// note keeps something to be said when the line is gone.
func (m *meter) note(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.notes) < maxNotes {
		m.notes = append(m.notes, fmt.Sprintf(format, args...))
	}
}

// maxNotes bounds what is said of a copy.
const maxNotes = 50

func (m *meter) stop() {
	m.line.Stop()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, n := range m.notes {
		m.app.note("%s", n)
	}
}
