// Package tarcopy moves files between a file system and tar streams, as a copy out of and into containers does. An
// archive is whatever the other side sends: [Unpack] writes below one directory and nowhere else, whatever names and
// links the archive holds. Nothing here holds more than a piece of a file in memory, or starts a goroutine.
package tarcopy

import (
	"archive/tar"
	"fmt"
	"path"
	"strings"
)

// Options of a copy.
type Options struct {
	// Owner keeps who owns the files, and the bits that let a program run as its owner. Otherwise they belong to root in
	// a container, and here to whoever copies.
	Owner bool
	// Moved is told of each piece of a file that was copied; nil is fine.
	Moved func(bytes int)
	// Skipped is told of what cannot be copied; nil is fine.
	Skipped func(name, why string)
}

func (o *Options) moved(n int) {
	if o.Moved != nil {
		o.Moved(n)
	}
}

func (o *Options) skipped(name, why string) {
	if o.Skipped != nil {
		o.Skipped(name, why)
	}
}

// Totals are what a copy moved.
type Totals struct {
	Files int   // of any kind, but directories
	Bytes int64 // of their contents
}

// chunk is the piece in which contents are copied.
const chunk = 256 << 10

// A base is what an archive is a copy of: a file or a directory, whose name all entries begin with.
type base struct {
	name string // "" if the names begin below it already
	set  bool
}

// below returns the name of an entry below the base, "" for the base itself. The first entry is the base.
func (b *base) below(h *tar.Header, of string) (string, error) {
	if !b.set {
		b.set = true
		if root := path.Clean("/"+of) == "/"; !root {
			b.name, _, _ = strings.Cut(clean(h.Name), "/")
		}
	}
	return b.rest(h.Name)
}

// rest takes the base's name off.
func (b *base) rest(name string) (string, error) {
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "", fmt.Errorf("the archive holds the name %q, which leads elsewhere", name)
		}
	}
	cleaned := clean(name)
	switch {
	case b.name == "" || cleaned == b.name:
		return strings.TrimPrefix(cleaned, b.name), nil
	case strings.HasPrefix(cleaned, b.name+"/"):
		return cleaned[len(b.name)+1:], nil
	}
	return "", fmt.Errorf("the archive of %q holds %q, which is not below it", b.name, name)
}

// clean makes a relative name, "" for the root.
func clean(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

// join is path.Join that keeps "" as it is.
func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "/" + b
}
