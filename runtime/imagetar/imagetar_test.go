package imagetar_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/runtime/imagetar"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tree makes a directory with files; a content that begins with "->" is a symlink.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, ok := strings.CutPrefix(content, "->"); ok {
			err = os.Symlink(target, path)
		} else {
			err = os.WriteFile(path, []byte(content), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// contextOf reads a whole context: names with their content, "->target" for links.
func contextOf(t *testing.T, dir string, src imagetar.ContextSource) (map[string]string, string, error) {
	t.Helper()
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	src.Dir = d
	stream, dockerfile, err := imagetar.Context(src)
	if err != nil {
		return nil, "", err
	}
	defer stream.Close()
	files := map[string]string{}
	for r := tar.NewReader(stream); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files, dockerfile, nil
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = string(b)
		if h.Typeflag == tar.TypeSymlink {
			files[h.Name] = "->" + h.Linkname
		}
	}
}

func TestContext(t *testing.T) {
	dir := tree(t, map[string]string{
		"Dockerfile": "FROM scratch", ".dockerignore": "# a comment\n*.log\nsecret\n!keep.log\nDockerfile\n.dockerignore\nnode_modules/**\n",
		"a.log": "x", "keep.log": "kept", "secret/key": "x", "src/main.c": "int", "src/link": "->/etc/passwd", "node_modules/left/pad.js": "x",
		"docker/other": "FROM x", "docker/other.dockerignore": "src\n",
	})
	for _, c := range []struct {
		src  imagetar.ContextSource
		want []string
	}{
		{imagetar.ContextSource{}, []string{".dockerignore", "Dockerfile", "docker/", "docker/other", "docker/other.dockerignore", "keep.log", "node_modules/", "src/", "src/link", "src/main.c"}},
		{imagetar.ContextSource{Dockerfile: "docker/other"}, []string{
			".dockerignore", "Dockerfile", "a.log", "docker/", "docker/other", "docker/other.dockerignore", "keep.log",
			"node_modules/", "node_modules/left/", "node_modules/left/pad.js", "secret/", "secret/key",
		}},
	} {
		files, dockerfile, err := contextOf(t, dir, c.src)
		if err != nil {
			t.Fatal(err)
		}
		if got := slices.Sorted(maps.Keys(files)); !slices.Equal(got, c.want) {
			t.Errorf("%+v: context\n%q, want\n%q", c.src, got, c.want)
		}
		if want := firstOf(c.src.Dockerfile, "Dockerfile"); dockerfile != want {
			t.Errorf("Dockerfile %q", dockerfile)
		}
		if link, ok := files["src/link"]; ok && link != "->/etc/passwd" {
			t.Errorf("the link was followed: %q", link)
		}
	}
	files, dockerfile, err := contextOf(t, dir, imagetar.ContextSource{Outside: strings.NewReader("FROM outside")})
	if err != nil || files[dockerfile] != "FROM outside" || files["keep.log"] != "kept" {
		t.Errorf("with a Dockerfile from outside: %q %v, %v", dockerfile, files, err)
	}
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func TestContextRefusals(t *testing.T) {
	outside := tree(t, map[string]string{"Dockerfile": "FROM outside", "secret": "x"})
	for name, c := range map[string]struct {
		files map[string]string
		src   imagetar.ContextSource
		want  string
	}{
		"no Dockerfile":           {map[string]string{"a": "x"}, imagetar.ContextSource{}, `the context has no file "Dockerfile"`},
		"symlink out":             {map[string]string{"Dockerfile": "->" + outside + "/Dockerfile"}, imagetar.ContextSource{}, "leads out of the context through a symlink"},
		"symlinked folder out":    {map[string]string{"sub": "->" + outside}, imagetar.ContextSource{Dockerfile: "sub/Dockerfile"}, "leads out of the context through a symlink"},
		"symlinked .dockerignore": {map[string]string{"Dockerfile": "x", ".dockerignore": "->" + outside + "/secret"}, imagetar.ContextSource{}, "leads out of the context through a symlink"},
		"dots":                    {map[string]string{"a": "x"}, imagetar.ContextSource{Dockerfile: "../Dockerfile"}, "is not in the context"},
		"directory":               {map[string]string{"Dockerfile/x": "x"}, imagetar.ContextSource{}, "is no file"},
		"bad pattern":             {map[string]string{"Dockerfile": "x", ".dockerignore": "[a-\n"}, imagetar.ContextSource{}, ".dockerignore"},
		"empty from outside":      {map[string]string{"a": "x"}, imagetar.ContextSource{Outside: strings.NewReader(" \n")}, "is empty"},
		"huge from outside":       {map[string]string{"a": "x"}, imagetar.ContextSource{Outside: io.LimitReader(zeros{}, 8<<20)}, "is too large"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := contextOf(t, tree(t, c.files), c.src)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %v, want one line with %q", err, c.want)
			}
		})
	}
	f, err := os.Open(filepath.Join(outside, "secret"))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := imagetar.Context(imagetar.ContextSource{Dir: f}); err == nil || !strings.Contains(err.Error(), "is no directory") {
		t.Errorf("a file as context: %v", err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// A context is read as it is sent: who stops reading ends the walk.
func TestContextIsClosed(t *testing.T) {
	dir := tree(t, map[string]string{"Dockerfile": "x", "big": strings.Repeat("x", 1<<20)})
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	stream, _, err := imagetar.Context(imagetar.ContextSource{Dir: d})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Read(make([]byte, 512)); err != nil {
		t.Fatal(err)
	}
	if err := stream.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestUnpackIsBounded(t *testing.T) {
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	_, _ = io.CopyN(z, zeros{}, 64<<20)
	_ = z.Close()
	stream, err := imagetar.Unpack(io.NopCloser(&bomb), 1<<20, "the context")
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	n, err := io.Copy(io.Discard, stream)
	if !errors.Is(err, runtime.ErrInvalid) || n > 1<<20 || err.Error() != "the context: is larger than 1.0 MB, the most that this host takes" {
		t.Errorf("%d bytes of a bomb, then %v", n, err)
	}
	if _, err := imagetar.Unpack(io.NopCloser(strings.NewReader("\x1f\x8bnot gzip")), 1<<20, "x"); !errors.Is(err, runtime.ErrInvalid) {
		t.Errorf("broken gzip: %v", err)
	}
}

func TestCreateAndOpenStayBelow(t *testing.T) {
	outside := t.TempDir()
	dir := tree(t, map[string]string{"out": "->" + outside, "here": "x"})
	allowed := []string{dir}
	f, remove, err := imagetar.Create(allowed, filepath.Join(dir, "new.tar"))
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := remove(); err != nil {
		t.Error(err)
	}
	for path, want := range map[string]error{
		filepath.Join(dir, "here"): runtime.ErrConflict, filepath.Join(dir, "out/new"): runtime.ErrInvalid, outside + "/new": runtime.ErrInvalid,
		dir + "/../x": runtime.ErrInvalid, "relative": runtime.ErrInvalid, "": runtime.ErrInvalid, filepath.Join(dir, "none/new"): runtime.ErrNotFound,
	} {
		if _, _, err := imagetar.Create(allowed, path); !errors.Is(err, want) {
			t.Errorf("Create %q: %v, want %v", path, err, want)
		}
	}
	if _, err := imagetar.Open(allowed, filepath.Join(dir, "out")); !errors.Is(err, runtime.ErrInvalid) {
		t.Errorf("Open through a link: %v", err)
	}
	if left, _ := os.ReadDir(outside); len(left) > 0 {
		t.Errorf("made outside: %v", left)
	}
}
