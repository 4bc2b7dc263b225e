package service

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/droverhq/drover/runtime"
)

// contextTar is a build context with a Dockerfile and a file.
func contextTar(dockerfile string) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, content := range map[string]string{"Dockerfile": dockerfile, "big": strings.Repeat("x", 1<<20)} {
		_ = w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))})
		_, _ = io.WriteString(w, content)
	}
	_ = w.Close()
	return b.Bytes()
}

// build sends a build whose body is streamed, without a length, and returns what was answered.
func (n *node) build(request any, body io.Reader) (steps []runtime.BuildStep, last BuildLine, status int) {
	n.t.Helper()
	r, w := io.Pipe()
	parts := multipart.NewWriter(w)
	go func() {
		part, err := parts.CreateFormField("request")
		if err == nil {
			err = json.NewEncoder(part).Encode(request)
		}
		if err == nil && body != nil {
			if part, err = parts.CreateFormFile("context", "context.tar"); err == nil {
				_, err = io.Copy(part, body)
			}
		}
		if err == nil {
			err = parts.Close()
		}
		w.CloseWithError(err)
	}()
	defer r.Close()
	resp, err := http.Post(n.url+"/v1/images/build", parts.FormDataContentType(), r)
	if err != nil {
		n.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		last.Error = &Error{}
		if err := json.NewDecoder(resp.Body).Decode(last.Error); err != nil {
			n.t.Fatal(err)
		}
		return nil, last, resp.StatusCode
	}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		last = BuildLine{}
		if err := json.Unmarshal(lines.Bytes(), &last); err != nil {
			n.t.Fatalf("%v in %s", err, lines.Text())
		}
		if last.Step != nil {
			steps = append(steps, *last.Step)
		}
	}
	if err := lines.Err(); err != nil {
		n.t.Fatal(err)
	}
	return steps, last, resp.StatusCode
}

func (n *node) forgetImage(refs ...string) {
	n.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		for _, ref := range refs {
			if err := n.engine.RemoveImage(ctx, ref, true); err != nil && !errors.Is(err, runtime.ErrNotFound) {
				n.t.Error(err)
			}
		}
	})
}

// The context goes through a reverse proxy and a tunnel, and the log comes back.
func TestBuildThroughATunnel(t *testing.T) {
	direct := newNode(t, nil)
	n := direct.tunneled()
	for _, builder := range []string{runtime.BuilderBuildKit, runtime.BuilderClassic} {
		t.Run(builder, func(t *testing.T) {
			salt := "service-image-" + strings.ToLower(rand.Text()[:12])
			ref := salt + ":1"
			direct.forgetImage(ref)
			steps, last, status := n.build(map[string]any{"tags": []string{ref}, "builder": builder, "args": m{"SECRET": "x"}},
				bytes.NewReader(contextTar("FROM "+image+"\nARG SECRET\nCOPY big /big\nRUN echo "+salt+"; ls -l /big\n")))
			if status != http.StatusOK || last.Image == nil || last.Image.ID == "" || last.Image.Builder != builder {
				t.Fatalf("status %d, last line %+v of %+v", status, last, steps)
			}
			var out strings.Builder
			for _, s := range steps {
				out.WriteString(s.Text)
			}
			if !strings.Contains(out.String(), "1048576") || !strings.Contains(out.String(), salt) {
				t.Errorf("the log has %q", out.String())
			}
			// A failing step is told before the error.
			steps, last, status = n.build(map[string]any{"builder": builder}, bytes.NewReader(contextTar("FROM "+image+"\nRUN echo broken; exit 7\n")))
			if status != http.StatusOK || last.Error == nil || last.Error.Code != codeInvalid || !strings.Contains(last.Error.Message, "exit 7") || len(steps) == 0 {
				t.Fatalf("status %d, last line %+v of %+v", status, last.Error, steps)
			}
			failed := steps[len(steps)-1]
			if failed.State != runtime.BuildFailed || !slices.Contains(failed.Tail, "broken") {
				t.Errorf("the last step is %+v", failed)
			}
		})
	}
}

type m = map[string]any

func TestBuildRefusals(t *testing.T) {
	dir := t.TempDir()
	outside := t.TempDir()
	if err := errors.Join(os.WriteFile(filepath.Join(outside, "Dockerfile"), []byte("FROM scratch"), 0o600), os.Symlink(outside, filepath.Join(dir, "out"))); err != nil {
		t.Fatal(err)
	}
	n := newNode(t, func(c *Config) {
		c.Images = Images{Roots: []string{dir}, MaxSize: 4 << 20}
		c.Policy = func(_ context.Context, a Action) error {
			if a.Verb == VerbImageWrite {
				return errors.New("not here")
			}
			return nil
		}
	}).tunneled()
	var huge bytes.Buffer // the head of a tar with a file of 1 GiB
	_ = tar.NewWriter(&huge).WriteHeader(&tar.Header{Name: "Dockerfile", Mode: 0o644, Size: 1 << 30})
	endless := func(n int64) io.Reader {
		return io.MultiReader(bytes.NewReader(huge.Bytes()), io.LimitReader(zeros{}, n))
	}
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	_, _ = io.Copy(z, endless(16<<20))
	_ = z.Close()
	for name, c := range map[string]struct {
		request any
		context io.Reader
		status  int
		want    string
	}{
		"bomb":           {m{"builder": "classic"}, bytes.NewReader(bomb.Bytes()), 400, "the context: is larger than 4.2 MB"},
		"endless":        {m{"builder": "classic"}, endless(64 << 20), 400, "the context: is larger than 4.2 MB"},
		"no name":        {m{"tags": []string{"Not A Name"}}, bytes.NewReader(contextTar("FROM scratch")), 400, "is no image reference"},
		"wrong type":     {m{"tags": 7}, bytes.NewReader(contextTar("FROM scratch")), 400, "field tags of the request is a number"},
		"unknown step":   {m{"builder": "classic"}, bytes.NewReader(contextTar("FROM scratch\nFOO\n")), 400, "unknown instruction: FOO"},
		"no context":     {m{}, nil, 400, "the body has no part context"},
		"escape":         {m{"path": filepath.Join(dir, "out")}, nil, 400, "leads out of the folder"},
		"elsewhere":      {m{"path": "/etc"}, nil, 400, "is not under " + dir},
		"two contexts":   {m{"path": dir, "remote": "https://example.org/x.git"}, nil, 400, "either a path or a URL"},
		"no Dockerfile":  {m{"path": dir}, nil, 404, `the context has no file "Dockerfile"`},
		"session":        {m{"remote": "client-session"}, nil, 400, "is no git or tar URL"},
		"huge arguments": {m{"args": m{"A": strings.Repeat("x", 2<<20)}}, nil, 400, "the request is larger than"},
	} {
		t.Run(name, func(t *testing.T) {
			n := *n
			n.t = t
			_, last, status := n.build(c.request, c.context)
			if last.Error == nil || status != c.status && last.Error.Status != c.status || !strings.Contains(last.Error.Message, c.want) || strings.Contains(last.Error.Message, "\n") {
				t.Errorf("status %d, %+v; want %d with %q", status, last.Error, c.status, c.want)
			}
		})
	}
	for path, want := range map[string]int{"/v1/images/load": http.StatusForbidden, "/v1/images/import?image=x": http.StatusForbidden, "/v1/images/build": http.StatusBadRequest} {
		resp, err := http.Post(n.url+path, "application/x-tar", strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s answers %s", path, resp.Status)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// A buildStub builds as the test says.
type buildStub struct {
	stub
	build func(ctx context.Context, source io.Reader, step func(runtime.BuildStep)) error
}

func (b *buildStub) BuildImage(ctx context.Context, _ runtime.BuildRequest, source io.Reader, step func(runtime.BuildStep)) (runtime.BuildResult, error) {
	return runtime.BuildResult{}, b.build(ctx, source, step)
}

// A caller who goes away in the middle of sending, or of the build, ends the build.
func TestBuildEndsWithItsCaller(t *testing.T) {
	started, ended := make(chan struct{}, 2), make(chan error, 1)
	engine := &buildStub{build: func(ctx context.Context, source io.Reader, step func(runtime.BuildStep)) error {
		started <- struct{}{}
		_, err := io.Copy(io.Discard, source)
		if err == nil {
			step(runtime.BuildStep{Text: "begun"})
			<-ctx.Done()
			err = ctx.Err()
		}
		ended <- err
		return err
	}}
	n := stubNode(t, engine, nil).url
	var body bytes.Buffer
	parts := multipart.NewWriter(&body)
	_ = parts.WriteField("request", "{}")
	part, _ := parts.CreateFormFile("context", "x")
	_, _ = part.Write(contextTar("FROM scratch"))
	whole := body.String() // without the final boundary
	for _, complete := range []bool{false, true} {
		ctx, cancel := context.WithCancel(t.Context())
		r, w := io.Pipe()
		context.AfterFunc(ctx, func() { r.Close() }) // net/http waits for a Read of the body
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, n+"/v1/images/build", r)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", parts.FormDataContentType())
		go func() {
			_, _ = io.WriteString(w, whole)
			if complete {
				_, _ = io.WriteString(w, "\r\n--"+parts.Boundary()+"--\r\n")
				w.Close()
				return
			}
			<-started
			cancel()
		}()
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			if line, _ := bufio.NewReader(resp.Body).ReadString('\n'); !strings.Contains(line, "begun") {
				t.Errorf("answered %q", line)
			}
			cancel()
			resp.Body.Close()
		} else if complete {
			t.Error(err)
		}
		select {
		case err := <-ended:
			if err == nil {
				t.Error("the build ended well")
			}
		case <-time.After(patience):
			t.Fatal("the build does not end")
		}
		r.Close()
		cancel()
	}
}

// Images go out as a tar and come back, through a tunnel, and so does a root file system.
func TestSaveLoadImport(t *testing.T) {
	direct := newNode(t, nil)
	n := direct.tunneled()
	ref := "service-image-" + strings.ToLower(rand.Text()[:12]) + ":1"
	direct.forgetImage(ref)
	var root bytes.Buffer
	z := gzip.NewWriter(&root)
	_, _ = z.Write(contextTar("x"))
	_ = z.Close()
	post := func(path string, body io.Reader, into any) {
		t.Helper()
		resp, err := http.Post(n.url+path, "application/x-tar", body)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s %s", path, resp.Status, b)
		}
		if err := json.Unmarshal(b, into); err != nil {
			t.Fatal(err)
		}
	}
	var made struct{ Image struct{ ID, Name string } }
	post("/v1/images/import?"+url.Values{"image": {ref}, "change": {`CMD ["/x"]`}}.Encode(), &root, &made)
	cfg, err := direct.engine.ImageConfig(t.Context(), ref)
	if err != nil || cfg.ID != made.Image.ID {
		t.Fatalf("imported %+v, and there is %+v, %v", made, cfg, err)
	}
	resp, err := http.Get(n.url + "/v1/images/save?image=" + url.QueryEscape(ref))
	if err != nil {
		t.Fatal(err)
	}
	saved, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || resp.StatusCode != http.StatusOK || len(saved) < 1<<20 {
		t.Fatalf("saved %d bytes, %s, %v", len(saved), resp.Status, err)
	}
	if err := direct.engine.RemoveImage(t.Context(), ref, true); err != nil {
		t.Fatal(err)
	}
	var loaded struct{ Images []string }
	post("/v1/images/load", bytes.NewReader(saved), &loaded)
	if !slices.Equal(loaded.Images, []string{ref}) {
		t.Errorf("loaded %q", loaded.Images)
	}
	if again, err := direct.engine.ImageConfig(t.Context(), ref); err != nil || again.ID != cfg.ID {
		t.Errorf("loaded %+v, %v", again, err)
	}
	for path, want := range map[string]int{"?image=" + ref + "-none": http.StatusNotFound, "": http.StatusBadRequest} {
		resp, err := http.Get(n.url + "/v1/images/save" + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("save%s: %s", path, resp.Status)
		}
	}
}
