package tarcopy

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var when = time.Date(2020, 2, 3, 4, 5, 6, 0, time.UTC)

// tree makes a directory with what a directory can hold.
func tree(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "src")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(filepath.Join(dir, "sub", "empty"), 0o755))
	must(os.WriteFile(filepath.Join(dir, "plain"), []byte("plain"), 0o640))
	must(os.WriteFile(filepath.Join(dir, "sub", "run.sh"), bytes.Repeat([]byte("x"), 300_000), 0o755))
	must(os.Link(filepath.Join(dir, "plain"), filepath.Join(dir, "sub", "same")))
	must(os.Symlink("../plain", filepath.Join(dir, "sub", "link")))
	must(os.Symlink("/nowhere/at all", filepath.Join(dir, "broken")))
	must(os.WriteFile(filepath.Join(dir, "ünï code "+strings.Repeat("n", 200)), nil, 0o600))
	must(unix.Mkfifo(filepath.Join(dir, "pipe"), 0o620))
	must(os.Chmod(filepath.Join(dir, "pipe"), 0o620))
	must(os.Chtimes(filepath.Join(dir, "plain"), when, when))
	must(os.Chmod(filepath.Join(dir, "sub", "empty"), 0o511))
	must(os.Chtimes(filepath.Join(dir, "sub"), when, when))
	return dir
}

// describe lists what is below dir.
func describe(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		line := fmt.Sprintf("%s %v", rel, info.Mode())
		switch {
		case info.Mode().IsRegular():
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %d %x", len(b), b[:min(len(b), 8)])
		case info.Mode()&fs.ModeSymlink != 0:
			target, _ := os.Readlink(p)
			line += " -> " + target
		}
		if info.ModTime().Equal(when) {
			line += " then"
		}
		all = append(all, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func pack(t *testing.T, src, as string, o Options) (*bytes.Buffer, Totals) {
	t.Helper()
	var b bytes.Buffer
	totals, err := Pack(t.Context(), &b, src, as, o)
	if err != nil {
		t.Fatal(err)
	}
	return &b, totals
}

func TestThereAndBack(t *testing.T) {
	src := tree(t)
	moved := 0
	archive, out := pack(t, src, "src", Options{Moved: func(n int) { moved += n }})
	size, err := Size(t.Context(), src)
	if err != nil || moved != 300_005 || out.Bytes != 300_005 || size < out.Bytes {
		t.Errorf("packed %d, %+v; size %d, %v", moved, out, size, err)
	}
	var renamed bytes.Buffer
	if _, err := Rename(t.Context(), &renamed, archive, "/a/src", "other", Options{}); err != nil {
		t.Fatal(err)
	}
	dst := filepath.Join(t.TempDir(), "dst")
	in, err := Unpack(t.Context(), &renamed, "/a/other", dst, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if in != out || in.Files != 7 {
		t.Errorf("out %+v, in %+v", out, in)
	}
	if got, want := describe(t, dst), describe(t, src); !slices.Equal(got, want) {
		t.Errorf("became\n%s\nof\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	one, _ := os.Stat(filepath.Join(dst, "plain"))
	two, err := os.Stat(filepath.Join(dst, "sub", "same"))
	if err != nil || !os.SameFile(one, two) {
		t.Errorf("the second name of a file became a file of its own: %v", err)
	}
	// Once more over what is there: a directory that is there already is filled, and otherwise left as it is.
	archive, _ = pack(t, src, "src", Options{})
	if _, err := Unpack(t.Context(), archive, "src", dst, Options{}); err != nil {
		t.Fatal(err)
	}
	want := describe(t, src)
	want[slices.Index(want, "sub drwxr-xr-x then")] = "sub drwxr-xr-x"
	if got := describe(t, dst); !slices.Equal(got, want) {
		t.Errorf("the second time became\n%s\nof\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestContentsAlone(t *testing.T) {
	archive, _ := pack(t, tree(t), "", Options{})
	var names []string
	for r := tar.NewReader(archive); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
		if h.Uid != 0 || h.Gid != 0 || h.Uname != "" {
			t.Errorf("%s belongs to %d:%d %q", h.Name, h.Uid, h.Gid, h.Uname)
		}
	}
	if !slices.Contains(names, "plain") || !slices.Contains(names, "sub/empty/") || slices.Contains(names, "/") {
		t.Errorf("names %q", names)
	}
}

func TestFileBecomesFile(t *testing.T) {
	src := tree(t)
	archive, _ := pack(t, filepath.Join(src, "plain"), "plain", Options{})
	dst := filepath.Join(t.TempDir(), "new name")
	for range 2 {
		if _, err := Unpack(t.Context(), bytes.NewReader(archive.Bytes()), "/etc/plain", dst, Options{}); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(dst); err != nil || string(b) != "plain" {
			t.Errorf("%q, %v", b, err)
		}
	}
	if left, err := os.ReadDir(filepath.Dir(dst)); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v %v", left, err)
	}
	if _, err := Unpack(t.Context(), archive, "plain", t.TempDir(), Options{}); err == nil || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("over a directory: %v", err)
	}
}

// TestSetuid: the bits that make a program run as its owner are kept with its owner alone.
func TestSetuid(t *testing.T) {
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	if err := w.WriteHeader(&tar.Header{Name: "su", Typeflag: tar.TypeReg, Mode: 0o4755, Uid: os.Getuid(), Gid: os.Getgid()}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for owner, want := range map[bool]fs.FileMode{false: 0o755, true: 0o755 | fs.ModeSetuid} {
		dst := filepath.Join(t.TempDir(), "su")
		if _, err := Unpack(t.Context(), bytes.NewReader(archive.Bytes()), "su", dst, Options{Owner: owner}); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(dst); err != nil || info.Mode() != want {
			t.Errorf("owner %v: %v, %v", owner, info, err)
		}
	}
}

// TestHostileArchives: nothing is written beside the destination.
func TestHostileArchives(t *testing.T) {
	file := func(name string) *tar.Header { return &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644} }
	dir := func(name string) *tar.Header { return &tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755} }
	link := func(name, to string) *tar.Header {
		return &tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to}
	}
	hard := func(name, to string) *tar.Header {
		return &tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: to}
	}
	for name, c := range map[string]struct {
		entries []*tar.Header
		says    string
	}{
		"dots":                      {[]*tar.Header{dir("d/"), file("d/../../outside/evil")}, "leads elsewhere"},
		"dots at first":             {[]*tar.Header{file("../outside/evil")}, "leads elsewhere"},
		"another tree":              {[]*tar.Header{dir("d/"), file("e/evil")}, "not below it"},
		"a name like a prefix":      {[]*tar.Header{dir("d/"), file("dd/evil")}, "not below it"},
		"over an absolute link":     {[]*tar.Header{dir("d/"), link("d/x", "OUTSIDE"), file("d/x/evil")}, "escapes"},
		"over a relative link":      {[]*tar.Header{dir("d/"), link("d/x", "../outside"), file("d/x/evil")}, "escapes"},
		"over a link, a directory":  {[]*tar.Header{dir("d/"), link("d/x", "../outside"), dir("d/x/evil/")}, "escapes"},
		"a link to what is outside": {[]*tar.Header{dir("d/"), hard("d/x", "d/../../outside/secret")}, "leads elsewhere"},
		"an absolute hard link":     {[]*tar.Header{dir("d/"), hard("d/x", "OUTSIDE/secret")}, "not below it"},
		"a hard link over a link":   {[]*tar.Header{dir("d/"), link("d/x", "../outside"), hard("d/y", "d/x/secret")}, "escapes"},
		"a file for a directory":    {[]*tar.Header{dir("d/"), dir("d/s/"), file("d/s")}, "is a directory"},
		"a directory for a file":    {[]*tar.Header{dir("d/"), file("d/s"), dir("d/s/")}, "is no directory"},
		"two files":                 {[]*tar.Header{file("d"), file("d")}, "holds"},
		"nothing":                   {nil, "empty"},
	} {
		t.Run(name, func(t *testing.T) {
			top := t.TempDir()
			outside := filepath.Join(top, "outside")
			if err := os.Mkdir(outside, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(outside, "secret"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			var archive bytes.Buffer
			w := tar.NewWriter(&archive)
			for _, h := range c.entries {
				h := *h
				h.Linkname = strings.Replace(h.Linkname, "OUTSIDE", outside, 1)
				if err := w.WriteHeader(&h); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			_, err := Unpack(t.Context(), &archive, "/d", filepath.Join(top, "dst"), Options{})
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %q", err, c.says)
			}
			if left, err := os.ReadDir(outside); err != nil || len(left) != 1 {
				t.Errorf("outside: %v %v", left, err)
			}
			var one unix.Stat_t
			if err := unix.Stat(filepath.Join(outside, "secret"), &one); err != nil || one.Nlink != 1 {
				t.Errorf("the secret has %d names, %v", one.Nlink, err)
			}
		})
	}
}

// TestDevicesAreSkipped and said.
func TestDevicesAreSkipped(t *testing.T) {
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for _, h := range []tar.Header{{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o755}, {Name: "d/null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}, {Name: "d/f", Typeflag: tar.TypeReg, Mode: 0o600}} {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	dst := filepath.Join(t.TempDir(), "dst")
	var skipped []string
	totals, err := Unpack(t.Context(), &archive, "d", dst, Options{Skipped: func(name, _ string) { skipped = append(skipped, name) }})
	if err != nil || totals.Files != 1 || !slices.Equal(skipped, []string{filepath.Join(dst, "null")}) {
		t.Errorf("%+v, %v, skipped %q", totals, err, skipped)
	}
}

// TestCutArchive: a stream that breaks leaves no half of a file.
func TestCutArchive(t *testing.T) {
	archive, _ := pack(t, tree(t), "src", Options{})
	dst := filepath.Join(t.TempDir(), "dst")
	whole := archive.Bytes()
	cut := bytes.Index(whole, []byte("xxxxxxxx")) + 100_000
	if _, err := Unpack(t.Context(), bytes.NewReader(whole[:cut]), "src", dst, Options{}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v", err)
	}
	left, err := os.ReadDir(filepath.Join(dst, "sub"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range left {
		if f.Name() == "run.sh" || strings.HasPrefix(f.Name(), ".drover") {
			t.Errorf("%s is left", f.Name())
		}
	}
}

func TestCopyEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	src := tree(t)
	if _, err := Pack(ctx, io.Discard, src, "x", Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("pack: %v", err)
	}
	archive, _ := pack(t, src, "src", Options{})
	if _, err := Unpack(ctx, archive, "src", filepath.Join(t.TempDir(), "d"), Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("unpack: %v", err)
	}
}

func FuzzUnpack(f *testing.F) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []tar.Header{{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o755}, {Name: "d/l", Typeflag: tar.TypeSymlink, Linkname: ".."}, {Name: "d/f", Typeflag: tar.TypeReg, Mode: 0o600}} {
		if err := w.WriteHeader(&h); err != nil {
			f.Fatal(err)
		}
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, archive []byte) {
		top := t.TempDir()
		_, _ = Unpack(t.Context(), io.LimitReader(bytes.NewReader(archive), 1<<20), "d", filepath.Join(top, "dst"), Options{})
		left, err := os.ReadDir(top)
		if err != nil || len(left) > 1 {
			t.Errorf("beside the destination: %v, %v", left, err)
		}
	})
}
