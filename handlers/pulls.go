package handlers

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/droverhq/drover/events"
	"github.com/droverhq/drover/runtime"
)

// pulls shares pulls: events that want the same image with the same login wait for one. A pull ends when nobody waits
// for it any more.
type pulls struct {
	images     runtime.Images
	inactivity time.Duration
	log        logrus.FieldLogger

	mu   sync.Mutex
	jobs map[pullKey]*pullJob // guarded by mu
}

type pullKey struct {
	ref      string
	platform string
	auth     runtime.RegistryAuth
}

// A pullJob is one pull and those who wait for it.
type pullJob struct {
	cancel  context.CancelFunc
	done    chan struct{} // closed when err is set
	err     error
	waiters map[*reporter]struct{} // guarded by pulls.mu
}

// pull fetches ref and reports how far it is. It returns when the image is there, the pull failed, or ctx ended.
func (s *pulls) pull(ctx context.Context, ref string, auth *runtime.RegistryAuth, p events.Progress) error {
	return s.share(ctx, pullKey{ref: ref}, auth, newReporter("Pulling "+ref, p))
}

// share is pull for a key that may have a platform, and a reporter of the caller's.
func (s *pulls) share(ctx context.Context, key pullKey, auth *runtime.RegistryAuth, me *reporter) error {
	ref := key.ref
	if auth != nil {
		key.auth = *auth
	}
	s.mu.Lock()
	job := s.jobs[key]
	if job == nil {
		jctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		job = &pullJob{cancel: cancel, done: make(chan struct{}), waiters: make(map[*reporter]struct{})}
		s.jobs[key] = job
		go s.run(jctx, key, auth, job)
	}
	job.waiters[me] = struct{}{}
	s.mu.Unlock()

	select {
	case <-job.done:
	case <-ctx.Done():
	}

	s.mu.Lock()
	delete(job.waiters, me)
	last := len(job.waiters) == 0
	if last && s.jobs[key] == job {
		delete(s.jobs, key) // who comes now starts anew
	}
	s.mu.Unlock()
	if last {
		// The last to leave owns the goroutine.
		job.cancel()
		<-job.done
	}
	select {
	case <-job.done:
		if job.err == nil {
			return nil
		}
	default:
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("pull %s: %w", ref, err)
	}
	return fmt.Errorf("image [%s] failed to pull: %w", ref, job.err)
}

// run pulls with the login, and without one if that fails.
func (s *pulls) run(ctx context.Context, key pullKey, auth *runtime.RegistryAuth, job *pullJob) {
	defer close(job.done)
	step := func(pp runtime.PullProgress) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for w := range job.waiters {
			w.step(pp)
		}
	}
	req := runtime.PullRequest{Ref: key.ref, Platform: key.platform, Auth: auth, Inactivity: s.inactivity}
	err := s.images.Pull(ctx, req, step)
	if err != nil && auth != nil && ctx.Err() == nil && !errors.Is(err, runtime.ErrUnavailable) {
		s.log.WithField("image", key.ref).WithError(err).Info("pull with credentials failed, trying without")
		req.Auth = nil
		if s.images.Pull(ctx, req, step) == nil {
			err = nil
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	job.err = err
	if s.jobs[key] == job {
		delete(s.jobs, key)
	}
}
