package handlers_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/handlers"
	"github.com/droverhq/drover/runtime"
)

func TestPullWithCredentials(t *testing.T) {
	denied := fmt.Errorf("access to the resource is denied: %w", runtime.ErrUnsupported)
	s := newStub()
	s.fail = failing("pull redis:7 as user@registry.example", denied)
	r := newRouter(s, handlers.Options{})
	mustServe(t, r, event(t, "image.activate"))
	wantCalls(t, s, "pull redis:7 as user@registry.example", "pull redis:7 as nobody")

	// Both fail: the first error is the one that counts.
	s = newStub()
	s.fail = func(call string) error {
		switch call {
		case "pull redis:7 as nobody":
			return errors.New("second")
		case "pull redis:7 as user@registry.example":
			return denied
		}
		return nil
	}
	wantError(t, serve(t, newRouter(s, handlers.Options{}), event(t, "image.activate")), wire.CodeUnsupported, "access to the resource is denied")

	// Half a credential is none, and the old name of Docker's registry is put right.
	s = newStub()
	mustServe(t, newRouter(s, handlers.Options{}), with(t, event(t, "image.activate"), "imageStoragePoolMap.image.registryCredential.secretValue", ""))
	mustServe(t, newRouter(s, handlers.Options{}), event(t, "pull"))
	wantCalls(t, s, "pull redis:7 as nobody", "pull index.docker.io/nginx:latest as user@https://index.docker.io",
		"tag index.docker.io/nginx:latest index.docker.io/nginx:latestpull-123")
}

// A pull that stops in the middle is an error, whatever came before.
func TestPullBreaks(t *testing.T) {
	s := newStub()
	s.steps = []runtime.PullProgress{{Layer: "a", Status: "Downloading", Current: 5, Total: 10}}
	s.onPull = func(context.Context, runtime.PullRequest) error {
		return fmt.Errorf("the daemon's answer ended too early: %w", runtime.ErrUnavailable)
	}
	wantError(t, serve(t, newRouter(s, handlers.Options{}), event(t, "image.activate")), wire.CodeUnavailable, "ended too early")
}

func TestImageIsThereAlready(t *testing.T) {
	s := newStub()
	s.images["redis:7"] = runtime.ImageConfig{ID: "x"}
	mustServe(t, newRouter(s, handlers.Options{}), event(t, "image.activate"))
	wantCalls(t, s)
	s = newStub()
	mustServe(t, newRouter(s, handlers.Options{}), with(t, event(t, "image.activate"), "processData.containerNoOpEvent", true))
	mustServe(t, newRouter(s, handlers.Options{}), with(t, event(t, "image.activate"), "imageStoragePoolMap.image.processData", map[string]any{"containerNoOpEvent": true}))
	wantCalls(t, s)
}

func TestBuild(t *testing.T) {
	s := newStub()
	r := newRouter(s, handlers.Options{})
	mustServe(t, r, event(t, "image.build"))
	wantCalls(t, s, "build git://github.com/acme/app built:1")
	delete(s.images, "built:1")
	ev := with(t, event(t, "image.build"), "imageStoragePoolMap.image.data.fields.build", map[string]any{"context": "http://server/ctx.tar"})
	mustServe(t, r, ev)
	wantCalls(t, s, "build http://server/ctx.tar built:1")
	delete(s.images, "built:1")
	s.fail = failing("build", errors.New("COPY failed"))
	wantError(t, serve(t, r, ev), wire.CodeInternal, "COPY failed")
	wantError(t, serve(t, newRouter(plainEngine{s}, handlers.Options{}), ev), wire.CodeUnsupported, "build image built:1")
}

// plainEngine has no optional capability.
type plainEngine struct{ handlers.Engine }

// Events that want the same image share one pull; it goes on as long as one of them waits, and ends with the last.
func TestPullsAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStub()
		finish := make(chan struct{})
		ended := make(chan error, 10)
		s.onPull = func(ctx context.Context, _ runtime.PullRequest) error {
			select {
			case <-finish:
				ended <- nil
				return nil
			case <-ctx.Done():
				ended <- ctx.Err()
				return ctx.Err()
			}
		}
		r := newRouter(s, handlers.Options{})
		run := func(ctx context.Context) chan *wire.Reply {
			c := make(chan *wire.Reply, 1)
			go func() { c <- r.Serve(ctx, event(t, "image.activate"), nil) }()
			synctest.Wait()
			return c
		}
		impatient, leave := context.WithCancel(t.Context())
		first := run(impatient)
		second := run(t.Context())
		leave()
		if reply := <-first; reply.Transitioning != wire.TransitioningError {
			t.Errorf("the first got %+v", reply)
		}
		synctest.Wait()
		if len(ended) != 0 {
			t.Fatal("the pull ended although somebody waits")
		}
		close(finish)
		if reply := <-second; reply.Transitioning != "" {
			t.Errorf("the second got %+v", reply)
		}
		wantCalls(t, s, "pull redis:7 as user@registry.example")

		// Nobody waits any more: the pull ends, and the next event begins anew.
		delete(s.images, "redis:7")
		<-ended
		finish = make(chan struct{})
		only, leave := context.WithCancel(t.Context())
		third := run(only)
		leave()
		<-third
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the pull ended with %v", err)
		}
		close(finish)
		if reply := <-run(t.Context()); reply.Transitioning != "" {
			t.Errorf("the fourth got %+v", reply)
		}
		<-ended
	})
}

// Progress is one line and a percentage that only grows.
func TestPullProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStub()
		s.onPull = nil
		p := &reports{}
		var percents []int
		steps := []runtime.PullProgress{
			{Status: "Pulling from library/redis", Layer: "7"},
			{Layer: "a", Status: "Pulling fs layer"},
			{Layer: "b", Status: "Pulling fs layer"},
			{Layer: "c", Status: "Already exists"},
			{Layer: "a", Status: "Downloading", Current: 1e6, Total: 10e6},
			{Layer: "b", Status: "Downloading", Current: 5e6, Total: 10e6},
			{Layer: "a", Status: "Download complete"},
			{Layer: "b", Status: "Downloading", Current: 4e6, Total: 10e6},
			{Layer: "b", Status: "Download complete"},
			{Layer: "a", Status: "Extracting", Current: 1, Total: 10e6},
			{Layer: "a", Status: "Pull complete"},
			{Layer: "b", Status: "Pull complete"},
			{Status: "Digest: sha256:x"},
		}
		e := &stepping{stub: s, steps: steps, each: func() {
			_, n := p.all()
			percents = append(percents, n)
		}}
		reply := newRouter(e, handlers.Options{}).Serve(t.Context(), event(t, "image.activate"), p)
		if reply.Transitioning != "" {
			t.Fatal(reply.TransitioningMessage)
		}
		lines, last := p.all()
		if !slices.IsSorted(percents) || last != 99 {
			t.Errorf("percentages are %v, then %d", percents, last)
		}
		for _, want := range []string{"Pulling redis:7: Pulling from library/redis", "Pulling redis:7: 1 of 3 layers, 6.0 MB of 20.0 MB", "Pulling redis:7: 3 of 3 layers, 20.0 MB of 20.0 MB"} {
			if !slices.Contains(lines, want) {
				t.Errorf("no line %q in\n%s", want, strings.Join(lines, "\n"))
			}
		}
	})
}

// stepping is a stub that takes its time between two steps of a pull.
type stepping struct {
	*stub
	steps []runtime.PullProgress
	each  func()
}

func (e *stepping) Pull(ctx context.Context, req runtime.PullRequest, progress func(runtime.PullProgress)) error {
	for _, s := range e.steps {
		time.Sleep(time.Second)
		progress(s)
		e.each()
	}
	return e.stub.Pull(ctx, req, progress)
}

// Many steps make few reports, but a pull that is alive reports in time.
func TestProgressIsThinned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStub()
		p := &reports{}
		var steps []runtime.PullProgress
		for i := range 10_000 {
			steps = append(steps, runtime.PullProgress{Layer: "a", Status: "Downloading", Current: int64(i), Total: 10_000})
		}
		e := &stepping{stub: s, each: func() {}}
		s.steps = steps // all at once
		for range 20 {
			e.steps = append(e.steps, runtime.PullProgress{Layer: "a", Status: "Extracting"}) // the same for 20 s
		}
		if reply := newRouter(e, handlers.Options{}).Serve(t.Context(), event(t, "image.activate"), p); reply.Transitioning != "" {
			t.Fatal(reply.TransitioningMessage)
		}
		if lines, _ := p.all(); len(lines) < 3 || len(lines) > 8 {
			t.Errorf("%d reports: %q", len(lines), lines)
		}
	})
}
