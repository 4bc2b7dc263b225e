package service

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/service/remote"
)

// keep runs a process whose viewer may lose its connection and come back. It returns when the first connection has ended;
// the process goes on by itself. release is called in any case, perhaps again.
func (s *Service) keep(w http.ResponseWriter, r *http.Request, opts remote.Options, lossy bool, action Action, release func(), run func(*remote.Session) error) error {
	admit := func(r *http.Request) error { return s.allow(r, action) }
	viewer, serve, err := s.keeper.Accept(s.ctx, w, r, opts, lossy, admit)
	if err != nil {
		release()
		return answered{err}
	}
	ok := s.spawn(func(ctx context.Context) {
		defer release()
		err := s.protected(action.Verb, func() error { return run(viewer) })
		if err != nil && ctx.Err() != nil {
			err = errShutdown()
		}
		viewer.Finish(err)
	})
	if !ok {
		release()
		viewer.Finish(errShutdown())
		return errShutdown()
	}
	serve()
	return nil
}

// serveResume continues a stream whose connection broke.
func (s *Service) serveResume(w http.ResponseWriter, r *http.Request) error {
	if !remote.Upgradable(r) {
		return s.upgradeRequired(w, r)
	}
	serve, err := s.keeper.Find(r, r.PathValue("session"))
	switch {
	case errors.Is(err, remote.ErrNotKept):
		return &runtime.Error{Kind: runtime.ErrNotFound, Message: err.Error()}
	case err != nil:
		return fmt.Errorf("continue a stream: %w", err)
	}
	serve(w)
	return nil
}

func errShutdown() error {
	return &runtime.Error{Kind: runtime.ErrUnavailable, Message: "the agent is shutting down"}
}
