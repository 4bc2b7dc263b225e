package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/service"
)

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
