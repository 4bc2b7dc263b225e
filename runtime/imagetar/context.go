package imagetar

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"

	"github.com/droverhq/drover/runtime"
)

// The most that a Dockerfile and a .dockerignore may hold.
const maxDockerfile = 4 << 20

// defaultDockerfile is its name where none is given.
const defaultDockerfile = "Dockerfile"

// A ContextSource says what a build context is made of.
type ContextSource struct {
	Dir        *os.File  // the directory; Context takes it over
	Dockerfile string    // its path in the directory; "" is "Dockerfile"
	Outside    io.Reader // the Dockerfile's content where it is not in the directory; nil otherwise
	Owner      bool      // everything belongs to root in the context, whoever owns it here
}

// Context streams a directory as the context of a build, without what its .dockerignore excludes (that of the
// Dockerfile's name goes first), and returns the Dockerfile's path in it. Links are kept as links. A Dockerfile that a
// symlink leads out of the directory to is refused. The caller closes the stream.
func Context(src ContextSource) (stream io.ReadCloser, dockerfile string, err error) {
	info, err := src.Dir.Stat()
	if err == nil && !info.IsDir() {
		err = &runtime.Error{Op: src.Dir.Name(), Kind: runtime.ErrInvalid, Message: "is no directory"}
	}
	if err != nil {
		return nil, "", errors.Join(err, src.Dir.Close())
	}
	root, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", src.Dir.Fd()))
	if err != nil {
		return nil, "", errors.Join(fmt.Errorf("open directory: %w", err), src.Dir.Close())
	}
	c := &contextWriter{treeWriter: treeWriter{root: root, linked: map[inode]string{}, owner: src.Owner}}
	if err := c.prepare(&src); err != nil {
		return nil, "", errors.Join(err, root.Close(), src.Dir.Close())
	}
	return streamOf(c, root, src.Dir), c.dockerfile, nil
}

func streamOf(c *contextWriter, closers ...io.Closer) io.ReadCloser {
	return stream(func(out *tar.Writer) error {
		c.out = out
		if c.injected != nil {
			h := &tar.Header{Name: c.dockerfile, Mode: 0o644, Size: int64(len(c.injected)), ModTime: time.Unix(0, 0)}
			if err := out.WriteHeader(h); err != nil {
				return err
			}
			if _, err := out.Write(c.injected); err != nil {
				return err
			}
		}
		return fs.WalkDir(c.root.FS(), ".", c.visitContext)
	}, closers...)
}

// A contextWriter writes a context.
type contextWriter struct {
	treeWriter
	dockerfile string
	injected   []byte // the Dockerfile from outside
	ignore     *patternmatcher.PatternMatcher
	always     map[string]bool // sent although they are excluded: the builder reads them
}

// prepare reads what must be known before the walk.
func (c *contextWriter) prepare(src *ContextSource) error {
	c.dockerfile = path.Clean(filepath.ToSlash(firstOf(src.Dockerfile, defaultDockerfile)))
	ignoreFile := c.dockerfile + ".dockerignore"
	if src.Outside != nil {
		b, err := io.ReadAll(io.LimitReader(src.Outside, maxDockerfile+1))
		switch {
		case err != nil:
			return fmt.Errorf("read the Dockerfile: %w", err)
		case len(b) > maxDockerfile:
			return invalid("Dockerfile", "is too large")
		case len(bytes.TrimSpace(b)) == 0:
			return invalid("Dockerfile", "is empty")
		}
		c.injected = b
		c.dockerfile = ".dockerfile." + strings.ToLower(rand.Text()[:16]) // of no file in the directory
		ignoreFile = ""
	} else {
		if !filepath.IsLocal(c.dockerfile) {
			return invalid("Dockerfile", fmt.Sprintf("%.200q is not in the context", c.dockerfile))
		}
		f, err := c.root.OpenFile(c.dockerfile, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			return dockerfileError(c.dockerfile, err)
		}
		info, err := f.Stat()
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return invalid("Dockerfile", fmt.Sprintf("%.200q is no file", c.dockerfile))
		}
	}
	c.always = map[string]bool{c.dockerfile: true}
	for _, name := range []string{ignoreFile, ".dockerignore"} {
		if name == "" {
			continue
		}
		found, err := c.readIgnore(name)
		if err != nil {
			return err
		}
		if found {
			c.always[name] = true
			break
		}
	}
	return nil
}

func dockerfileError(name string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &runtime.Error{Kind: runtime.ErrNotFound, Message: fmt.Sprintf("the context has no file %.200q", name), Cause: err}
	case strings.Contains(innermost(err), "escapes"):
		return invalid("Dockerfile", fmt.Sprintf("%.200q leads out of the context through a symlink", name))
	}
	return &runtime.Error{Op: name, Message: innermost(err), Cause: err}
}

// readIgnore reads a .dockerignore, and reports whether it is there.
func (c *contextWriter) readIgnore(name string) (bool, error) {
	f, err := c.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, dockerfileError(name, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxDockerfile+1))
	if err != nil {
		return false, err
	}
	if len(b) > maxDockerfile {
		return false, invalid(name, "is too large")
	}
	patterns, err := ignorefile.ReadAll(bytes.NewReader(b))
	if err != nil {
		return false, invalid(name, err.Error())
	}
	if c.ignore, err = patternmatcher.New(patterns); err != nil {
		return false, invalid(name, err.Error())
	}
	return true, nil
}

// visitContext is visit for what is not excluded.
func (c *contextWriter) visitContext(name string, entry fs.DirEntry, err error) error {
	if errors.Is(err, fs.ErrPermission) && name != "." {
		if skip, _ := c.excluded(name); skip {
			return fs.SkipDir // what nobody asks for may be unreadable
		}
	}
	if err != nil || name == "." || c.ignore == nil {
		return c.visit(name, entry, err)
	}
	skip, err := c.excluded(name)
	if err != nil {
		return err
	}
	if !skip || c.always[name] {
		return c.visit(name, entry, nil)
	}
	if entry.IsDir() && !c.neededBelow(name) {
		return fs.SkipDir
	}
	return nil
}

func (c *contextWriter) excluded(name string) (bool, error) {
	if c.ignore == nil {
		return false, nil
	}
	skip, err := c.ignore.MatchesOrParentMatches(name)
	if err != nil {
		return false, invalid(".dockerignore", err.Error())
	}
	return skip, nil
}

// neededBelow reports whether something in an excluded directory may be sent all the same.
func (c *contextWriter) neededBelow(dir string) bool {
	if c.ignore.Exclusions() {
		return true // patterns with wildcards may mean anything
	}
	for name := range c.always {
		if strings.HasPrefix(name, dir+"/") {
			return true
		}
	}
	return false
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
