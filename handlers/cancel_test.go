package handlers_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/handlers"
	"github.com/droverhq/drover/runtime"
)

// Work is ended by its name: at once where it is under way, when it comes where it was overtaken, and never for others
// who share it.
func TestWorkIsCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStub()
		finish := make(chan struct{})
		s.onPull = func(ctx context.Context, _ runtime.PullRequest) error {
			select {
			case <-finish:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		r := newRouter(s, handlers.Options{})
		pull := func(work string) chan *wire.Reply {
			c := make(chan *wire.Reply, 1)
			go func() {
				c <- r.Serve(t.Context(), imageEvent(t, "image.pull", m{"image": "redis:7", "work": work}), nil)
			}()
			synctest.Wait()
			return c
		}
		cancel := func(work string, found bool) {
			t.Helper()
			var answer struct{ Cancelled bool }
			ask(t, r, "work.cancel", m{"work": work}, &answer)
			if answer.Cancelled != found {
				t.Errorf("cancelling %s found it: %v", work, answer.Cancelled)
			}
		}
		first, second := pull("one"), pull("two")
		wantError(t, <-pull("two"), wire.CodeInvalid, "work: is the name of other work that is under way")
		cancel("one", true)
		wantError(t, <-first, wire.CodeConflict, "cancelled by its caller")
		synctest.Wait()
		if len(second) != 0 {
			t.Fatal("the other ended too")
		}
		cancel("one", false)
		cancel("two", true)
		wantError(t, <-second, wire.CodeConflict, "cancelled by its caller")
		wantCalls(t, s, "pull redis:7 as nobody")

		// "one" was given up once more when it was over: it is refused when it comes, once.
		wantError(t, <-pull("one"), wire.CodeConflict, "cancelled by its caller")
		for i := range 70 {
			cancel(fmt.Sprint("early-", i), false)
		}
		wantError(t, <-pull("early-69"), wire.CodeConflict, "cancelled by its caller")
		wantCalls(t, s) // no more
		close(finish)
		for _, work := range []string{"one", "early-0"} { // only so many names are kept
			if reply := <-pull(work); reply.Transitioning != "" {
				t.Errorf("%s: %s", work, reply.TransitioningMessage)
			}
		}
	})
	r := newRouter(newStub(), handlers.Options{})
	refused(t, r, "work.cancel", m{}, wire.CodeInvalid, "work: missing")
	refused(t, r, "work.cancel", m{"work": []string{"a"}}, wire.CodeInvalid, "work")
	for _, name := range []string{"work.cancel", "image.pull"} {
		refused(t, r, name, m{"image": "redis:7", "work": strings.Repeat("x", 129)}, wire.CodeInvalid, "work: is too long")
	}
}
