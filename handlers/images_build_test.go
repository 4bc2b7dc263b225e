package handlers_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/handlers"
)

// A folder of the host is built, saved into a file of the host and loaded again, through events alone.
func TestBuildSaveAndLoadEvents(t *testing.T) {
	e := dockerEngine(t)
	in, out := t.TempDir(), t.TempDir()
	r := newRouter(e, handlers.Options{ImageRoots: []string{in, out}, ExportRoots: []string{out}})
	label := prefix + newUUID()
	ref, file := label+":built", filepath.Join(out, "saved.tar")
	forgetImages(t, e, ref)
	write(t, filepath.Join(in, "Dockerfile"), []byte("FROM drover-test/busybox:1\nLABEL made="+label+"\nRUN echo "+label+" > /made\n"))
	var made oneImage
	ask(t, r, "image.build", m{"path": in, "tags": []string{ref}, "builder": "classic"}, &made)
	if made.Image.ID == "" {
		t.Fatalf("built %+v", made)
	}
	var saved struct {
		File struct {
			Path   string
			Bytes  int64
			Images []string
		}
	}
	ask(t, r, "image.save", m{"images": []string{ref}, "path": file}, &saved)
	info, err := os.Stat(file)
	if err != nil || info.Size() != saved.File.Bytes || info.Mode().Perm() != 0o600 {
		t.Fatalf("saved %+v, and there is %v, %v", saved, info, err)
	}
	if err := e.RemoveImage(t.Context(), ref, true); err != nil {
		t.Fatal(err)
	}
	var loaded struct{ Loaded []string }
	ask(t, r, "image.load", m{"path": file}, &loaded)
	if !slices.Equal(loaded.Loaded, []string{ref}) {
		t.Errorf("loaded %q", loaded.Loaded)
	}
	if got := field(t, mustServe(t, r, imageEvent(t, "image.inspect", m{"image": ref})).Data, "image", "Id"); got != made.Image.ID {
		t.Errorf("loaded %v, built %s", got, made.Image.ID)
	}

	write(t, filepath.Join(in, "failing"), []byte("FROM drover-test/busybox:1\nRUN echo why; exit 5\n"))
	if err := os.Symlink("/etc", filepath.Join(in, "out")); err != nil {
		t.Fatal(err)
	}
	refused(t, r, "image.build", m{"path": in, "dockerfile": "failing"}, wire.CodeInvalid, "exit 5")
	refused(t, r, "image.build", m{"path": filepath.Join(in, "out")}, wire.CodeInvalid, "leads out of the folder")
	refused(t, r, "image.build", m{"path": "/etc"}, wire.CodeInvalid, "is not under")
	refused(t, r, "image.build", m{}, wire.CodeInvalid, "missing")
	refused(t, r, "image.build", m{"path": in, "remote": "https://example.org/x"}, wire.CodeInvalid, "beside remote")
	refused(t, r, "image.build", m{"remote": "upload-request"}, wire.CodeInvalid, "is no git or tar URL")
	refused(t, r, "image.build", m{"path": in, "tags": m{}}, wire.CodeInvalid, "tags")
	refused(t, r, "image.build", m{"path": in, "credential": m{"username": "a", "password": "b"}}, wire.CodeInvalid, "serverAddress")
	refused(t, r, "image.save", m{"images": []string{ref}, "path": file}, wire.CodeConflict, "exists")
	refused(t, r, "image.save", m{"images": []string{ref}, "path": filepath.Join(in, "x.tar")}, wire.CodeInvalid, "is not under")
	refused(t, r, "image.save", m{"images": []string{label + ":none"}, "path": filepath.Join(out, "y.tar")}, wire.CodeNotFound, "o such image")
	refused(t, r, "image.save", m{"path": file}, wire.CodeInvalid, "images")
	if left, _ := filepath.Glob(filepath.Join(out, "*")); !slices.Equal(left, []string{file}) {
		t.Errorf("left behind: %s", strings.Join(left, " "))
	}
}
