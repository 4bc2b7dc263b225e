package docker_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/runtime/docker"
)

// contextTar is a build context of the files, in pairs of name and content.
func contextTar(files ...string) *bytes.Buffer {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		_ = w.WriteHeader(&tar.Header{Name: files[i], Mode: 0o644, Size: int64(len(files[i+1]))})
		_, _ = io.WriteString(w, files[i+1])
	}
	_ = w.Close()
	return &b
}

const testBase = "FROM drover-test/busybox:1\n"

// A buildLog is what a build told.
type buildLog []runtime.BuildStep

func (l *buildLog) step(s runtime.BuildStep) { *l = append(*l, s) }

// output is what the steps printed to a stream.
func (l buildLog) output(stream int) string {
	var b strings.Builder
	for _, s := range l {
		if s.Stream == stream {
			b.WriteString(s.Text)
		}
	}
	return b.String()
}

// has reports whether a step of that state has all the words.
func (l buildLog) find(state, name string) *runtime.BuildStep {
	for i := range l {
		if l[i].State == state && strings.Contains(l[i].Name, name) {
			return &l[i]
		}
	}
	return nil
}

func TestBuild(t *testing.T) {
	e := engine(t, docker.Config{})
	for _, builder := range []string{runtime.BuilderBuildKit, runtime.BuilderClassic} {
		t.Run(builder, func(t *testing.T) {
			ref := randomName() + ":1"
			forget(t, ref)
			salt := randomName() // so that no cache of an earlier run knows the steps
			source := contextTar("sub/Dockerfile.x", `FROM drover-test/busybox:1 AS first
ARG WHO
COPY a.txt /a.txt
RUN echo "hello $WHO `+salt+`"; echo oops >&2; cat /a.txt
FROM drover-test/busybox:1
RUN false
`, "a.txt", "content of a\n")
			// The target is the first stage: the second would fail.
			req := runtime.BuildRequest{
				Tags: []string{ref}, Dockerfile: "sub/Dockerfile.x", Args: map[string]string{"WHO": "world"}, Labels: map[string]string{"made-by": "test"},
				Target: "first", Builder: builder, Inactivity: time.Minute,
			}
			var log buildLog
			context := source.Bytes()
			got, err := e.BuildImage(t.Context(), req, bytes.NewReader(context), log.step)
			if err != nil {
				t.Fatalf("%v\n%+v", err, log)
			}
			cfg, err := e.ImageConfig(t.Context(), ref)
			if err != nil || cfg.ID != got.ID || got.Builder != builder || !slices.Equal(got.Tags, []string{ref}) {
				t.Errorf("built %+v, and the tag is of %q, %v", got, cfg.ID, err)
			}
			if out := log.output(1); !strings.Contains(out, "hello world "+salt) || !strings.Contains(out, "content of a") {
				t.Errorf("output %q", out)
			}
			if out := log.output(2); out != "oops\n" {
				t.Errorf("errors %q", out)
			}
			begun, done := log.find(runtime.BuildStarted, "RUN echo"), log.find(runtime.BuildDone, "RUN echo")
			if begun == nil || done == nil || begun.Step == "" || begun.Step != done.Step {
				t.Errorf("steps %+v", log)
			}
			raw, err := e.InspectImage(t.Context(), ref)
			if err != nil || !bytes.Contains(raw, []byte(`"made-by":"test"`)) {
				t.Errorf("labels in %.2000s, %v", raw, err)
			}
			if done != nil && builder == runtime.BuilderClassic && done.Layer == "" {
				t.Error("the classic builder's step names no image")
			}

			// Again: from the cache, and without it.
			log = nil
			if _, err := e.BuildImage(t.Context(), req, bytes.NewReader(context), log.step); err != nil {
				t.Fatal(err)
			}
			if log.find(runtime.BuildCached, "RUN echo") == nil || log.output(1) != "" {
				t.Errorf("second build: %+v", log)
			}
			req.NoCache, log = true, nil
			again, err := e.BuildImage(t.Context(), req, bytes.NewReader(context), log.step)
			if err != nil {
				t.Fatal(err)
			}
			forget(t, got.ID, again.ID)
			if log.find(runtime.BuildCached, "RUN echo") != nil || !strings.Contains(log.output(1), salt) {
				t.Errorf("build without a cache: %+v", log)
			}
		})
	}
}

func TestBuildFailures(t *testing.T) {
	e := engine(t, docker.Config{})
	fails := func(t *testing.T, req runtime.BuildRequest, source io.Reader, want string) buildLog {
		t.Helper()
		var log buildLog
		req.Inactivity = time.Minute
		_, err := e.BuildImage(t.Context(), req, source, log.step)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("error %v, want one line with %q", err, want)
		}
		if !errors.Is(err, runtime.ErrInvalid) {
			t.Errorf("%v is not invalid", err)
		}
		return log
	}
	for _, builder := range []string{runtime.BuilderBuildKit, runtime.BuilderClassic} {
		t.Run(builder, func(t *testing.T) {
			salt := randomName()
			failing := testBase + "RUN echo kept > /kept; echo " + salt + "\nRUN echo before; echo broken >&2; exit 3\nRUN true\n"
			log := fails(t, runtime.BuildRequest{Builder: builder}, contextTar("Dockerfile", failing), "exit 3")
			step := log.find(runtime.BuildFailed, "exit 3")
			if step == nil || !slices.Contains(step.Tail, "before") || !slices.Contains(step.Tail, "broken") || !strings.HasSuffix(step.Step, "3/4") {
				t.Fatalf("failed step %+v of %+v", step, log)
			}
			if builder == runtime.BuilderClassic {
				// The image before the failure can be started and looked into.
				if step.Image == "" {
					t.Fatal("no image to look into")
				}
				forget(t, step.Image)
				out, err := exec.Command("docker", "run", "--rm", step.Image, "cat", "/kept").CombinedOutput()
				if err != nil || string(out) != "kept\n" {
					t.Errorf("looking into %s: %v %s", step.Image, err, out)
				}
			}
			fails(t, runtime.BuildRequest{Builder: builder}, contextTar("Dockerfile", "FROM scratch\nFOO bar\n"), "unknown instruction: FOO")
			fails(t, runtime.BuildRequest{Builder: builder}, contextTar("Dockerfile", testBase+"COPY ../../etc/passwd /\n"), "passwd")
		})
	}
	some := contextTar("Dockerfile", testBase)
	fails(t, runtime.BuildRequest{Tags: []string{"Not A Name"}}, some, "is no image reference")
	fails(t, runtime.BuildRequest{}, nil, "there is no context")
	fails(t, runtime.BuildRequest{Remote: "client-session"}, nil, "is no git or tar URL")
	fails(t, runtime.BuildRequest{Remote: "https://ann:secret@example.org/ x"}, nil, "***")
	fails(t, runtime.BuildRequest{Builder: "kaniko"}, some, "neither buildkit nor classic")
	auths := map[string]runtime.RegistryAuth{"r": {Username: "a", Password: "b"}}
	fails(t, runtime.BuildRequest{Builder: runtime.BuilderBuildKit, Auths: auths}, some, "cannot be given credentials")
}

// The end of the caller's context ends the build in the daemon: its process goes away.
func TestBuildIsCancelled(t *testing.T) {
	e := engine(t, docker.Config{})
	for _, builder := range []string{runtime.BuilderBuildKit, runtime.BuilderClassic} {
		t.Run(builder, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			marker := randomName()
			running := func() bool {
				return exec.Command("pgrep", "-f", "sleep 6000.*"+marker).Run() == nil
			}
			source := contextTar("Dockerfile", testBase+"RUN echo begun; sh -c 'sleep 6000; echo "+marker+"'\n")
			_, err := e.BuildImage(ctx, runtime.BuildRequest{Builder: builder, Inactivity: 2 * time.Minute}, source, func(s runtime.BuildStep) {
				if strings.Contains(s.Text, "begun") {
					if !running() {
						t.Error("the step's process is not found")
					}
					cancel()
				}
			})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("error %v", err)
			}
			for end := time.Now().Add(time.Minute); running(); time.Sleep(50 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatal("the build goes on")
				}
			}
		})
	}
}

// A git repository and a tar are fetched by the daemon.
func TestBuildFromURL(t *testing.T) {
	e := engine(t, docker.Config{})
	dir := t.TempDir()
	repo := filepath.Join(dir, "repo.git")
	work := filepath.Join(dir, "work")
	git := func(args ...string) {
		t.Helper()
		cmd := exec.Command("git", args...)
		cmd.Env = append(os.Environ(), "HOME="+dir, "GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_NAME=t", "GIT_AUTHOR_EMAIL=t@example.org", "GIT_COMMITTER_NAME=t", "GIT_COMMITTER_EMAIL=t@example.org")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %q: %v\n%s", args, err, out)
		}
	}
	git("init", "-q", "-b", "master", work)
	if err := os.WriteFile(filepath.Join(work, "Dockerfile"), []byte(testBase+"COPY Dockerfile /from-git\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	git("-C", work, "add", ".")
	git("-C", work, "commit", "-q", "-m", "one")
	git("clone", "-q", "--bare", work, repo)
	path, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/", &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(path)), "git-http-backend"), Dir: dir, Stderr: io.Discard,
		Env: []string{"GIT_PROJECT_ROOT=" + dir, "GIT_HTTP_EXPORT_ALL=1", "HOME=" + dir, "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"},
	})
	mux.HandleFunc("/context.tar.gz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/x-tar")
		_, _ = w.Write(contextTar("Dockerfile", testBase+"COPY Dockerfile /from-tar\n").Bytes())
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	for _, builder := range []string{runtime.BuilderBuildKit, runtime.BuilderClassic} {
		for _, remote := range []string{"/repo.git", "/context.tar.gz"} {
			t.Run(builder+remote, func(t *testing.T) {
				var log buildLog
				got, err := e.BuildImage(t.Context(), runtime.BuildRequest{Remote: server.URL + remote, Builder: builder, Inactivity: time.Minute}, nil, log.step)
				if err != nil {
					t.Fatalf("%v\n%+v", err, log)
				}
				forget(t, got.ID)
			})
		}
		t.Run(builder+" missing", func(t *testing.T) {
			var log buildLog
			_, err := e.BuildImage(t.Context(), runtime.BuildRequest{Remote: strings.Replace(server.URL, "://", "://ann:secret@", 1) + "/none.git", Builder: builder, Inactivity: time.Minute}, nil, log.step)
			if err == nil || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %v", err)
			}
			for _, s := range log {
				if strings.Contains(s.Name+s.Text+strings.Join(s.Tail, ""), "secret") {
					t.Errorf("the password is told: %+v", s)
				}
			}
		})
	}
}
