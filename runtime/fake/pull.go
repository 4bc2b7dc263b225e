package fake

import (
	"context"
	"fmt"
	"time"

	"github.com/droverhq/drover/runtime"
)

// A Remote says how an image of the registry behaves when it is pulled. The zero value is pulled at once, by anybody.
type Remote struct {
	Config   runtime.ImageConfig
	Layers   int                   // 0 is 2
	Step     time.Duration         // between two steps of progress
	Err      error                 // ends the pull in the middle
	Stall    bool                  // in the middle there is no progress any more
	Auth     *runtime.RegistryAuth // who may pull; nil is everybody
	UpToDate bool                  // nothing to download
}

type remote struct{ Remote }

// Publish makes an image that can be pulled, or changes how. A ref that is none is ignored.
func (e *Engine) Publish(ref string, r Remote) {
	full, err := normalize("", ref)
	if err != nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(r.Config.Cmd) == 0 {
		r.Config.Cmd = []string{baseName(ref)}
	}
	if r.Layers <= 0 {
		r.Layers = 2
	}
	e.registry[full] = &remote{r}
}

// Pull fetches an image that was published.
func (e *Engine) Pull(ctx context.Context, req runtime.PullRequest, progress func(runtime.PullProgress)) error {
	op := "pull " + req.Ref
	if err := e.enter(ctx, "Pull", op); err != nil {
		return err
	}
	full, err := normalize(op, req.Ref)
	if err != nil {
		return err
	}
	e.mu.Lock()
	r := e.registry[full]
	e.mu.Unlock()
	if r == nil {
		return &runtime.Error{Op: op, Kind: runtime.ErrNotFound, Message: "manifest for " + req.Ref + " not found"}
	}
	if r.Auth != nil && (req.Auth == nil || req.Auth.Username != r.Auth.Username || req.Auth.Password != r.Auth.Password) {
		return &runtime.Error{Op: op, Kind: runtime.ErrNotFound, Message: "pull access denied for " + req.Ref}
	}
	if progress == nil {
		progress = func(runtime.PullProgress) {}
	}
	progress(runtime.PullProgress{Status: "Pulling from " + familiar(full)})
	if err := e.layers(ctx, op, r, req, progress); err != nil {
		return err
	}
	e.mu.Lock()
	e.addImage(full, r.Config)
	e.mu.Unlock()
	progress(runtime.PullProgress{Status: "Status: Downloaded newer image for " + req.Ref})
	return nil
}

// layers shows the progress of every layer, and fails in the middle if it was told to.
func (e *Engine) layers(ctx context.Context, op string, r *remote, req runtime.PullRequest, progress func(runtime.PullProgress)) error {
	if r.UpToDate {
		return nil
	}
	const size = 1 << 20
	lost := e.lost()
	for i := range r.Layers {
		layer := fmt.Sprintf("%012x", i+1)
		for done := int64(0); done <= size; done += size / 4 {
			if r.Step > 0 && !sleep(ctx, r.Step) || ctx.Err() != nil {
				return fmt.Errorf("%s: %w", op, ctx.Err())
			}
			select {
			case <-lost:
				return broken(op)
			default:
			}
			progress(runtime.PullProgress{Layer: layer, Status: "Downloading", Current: done, Total: size})
			if i < r.Layers/2 || done < size/2 {
				continue
			}
			if r.Err != nil {
				return &runtime.Error{Op: op, Message: r.Err.Error(), Cause: r.Err}
			}
			if r.Stall {
				return e.stall(ctx, op, req)
			}
		}
		progress(runtime.PullProgress{Layer: layer, Status: "Pull complete"})
	}
	return nil
}

// stall waits until nobody believes in the pull any more.
func (e *Engine) stall(ctx context.Context, op string, req runtime.PullRequest) error {
	patience := req.Inactivity
	if patience <= 0 {
		patience = 5 * time.Minute
	}
	if !sleep(ctx, patience) {
		return fmt.Errorf("%s: %w", op, ctx.Err())
	}
	return &runtime.Error{Op: op, Message: "no progress for " + patience.String()}
}
