package service

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/service/remote"
)

const (
	// starting is how long a process that says nothing counts as being started.
	starting = 250 * time.Millisecond
	// detachWait is how long a detached process may take to fail for its caller to hear of it.
	detachWait = time.Second
)

// serveExec runs a process for a viewer, or detached.
func (s *Service) serveExec(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	in, out, errOut, tty := q.streams()
	spec := q.execSpec(tty)
	detach := q.flag("detach")
	if q.err != nil {
		return q.err
	}
	if spec.Grace == 0 {
		spec.Grace = s.cfg.Grace
	}
	if !detach && !remote.Upgradable(r) {
		return s.upgradeRequired(w, r)
	}
	engine := capability[runtime.Execer](s.cfg.Engine)
	if engine == nil {
		return unsupported("exec")
	}
	st, err := s.container(r)
	if err != nil {
		return err
	}
	if err := s.allow(r, Action{Verb: VerbExec, Container: st, Exec: &spec}); err != nil {
		return err
	}
	if !st.Running || st.Paused {
		return conflict("container %s does not run: it is %s", st.Name, st.Status)
	}
	if detach {
		return s.execDetached(w, r, engine, st, spec)
	}
	// The turn is waited for before the upgrade: who is sent away gets a plain answer.
	leave, err := s.limit.enter(r.Context(), st.ID)
	if err != nil {
		return err
	}
	opts := s.viewerOptions(r, remote.Options{Stdin: in, Stdout: out, Stderr: errOut, TTY: tty})
	if s.keeper.Wants(r) {
		return s.keep(w, r, opts, false, Action{Verb: VerbExec, Container: st, Exec: &spec}, leave, func(viewer *remote.Session) error {
			return engine.Exec(viewer.Context(), st.ID, spec, started(leave, streamsOf(viewer)))
		})
	}
	defer leave()
	viewer, err := remote.Accept(w, r, opts)
	if err != nil {
		return answered{err}
	}
	err = engine.Exec(viewer.Context(), st.ID, spec, started(leave, streamsOf(viewer)))
	viewer.Finish(err)
	return ended(viewer, err)
}

// started calls leave as soon as the process is known to run: it says something, or has had the time to.
func started(leave func(), streams runtime.Streams) runtime.Streams {
	time.AfterFunc(starting, leave)
	if streams.Out != nil {
		streams.Out = firstWrite{streams.Out, leave}
	}
	if streams.Err != nil {
		streams.Err = firstWrite{streams.Err, leave}
	}
	return streams
}

type firstWrite struct {
	io.Writer
	leave func() // may be called often
}

func (f firstWrite) Write(p []byte) (int, error) {
	f.leave()
	return f.Writer.Write(p)
}

// execDetached starts a process without streams that outlives the request, and reports how it ended if it does so at once.
func (s *Service) execDetached(w http.ResponseWriter, r *http.Request, engine runtime.Execer, st runtime.ContainerStatus, spec runtime.ExecSpec) error {
	leave, err := s.limit.enter(r.Context(), st.ID)
	if err != nil {
		return err
	}
	spec.Keep = true
	done := make(chan error, 1)
	ok := s.spawn(func(ctx context.Context) {
		defer leave()
		time.AfterFunc(starting, leave)
		done <- engine.Exec(ctx, st.ID, spec, runtime.Streams{})
	})
	if !ok {
		leave()
		return errShutdown()
	}
	wait := time.NewTimer(detachWait)
	defer wait.Stop()
	code := 0
	select {
	case err := <-done:
		var exit *runtime.ExitError
		if err != nil && !errors.As(err, &exit) {
			return err
		}
		if exit != nil {
			code = exit.Code
		}
		return writeJSON(w, map[string]any{"type": "exec", "state": "ended", "exitCode": code, "container": st.ID})
	case <-wait.C:
	case <-r.Context().Done():
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusAccepted)
	return writeJSON(w, map[string]any{"type": "exec", "state": "running", "container": st.ID})
}

// serveAttach connects a viewer to the main process.
func (s *Service) serveAttach(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	in, out, errOut, tty := q.streams()
	replay := q.flag("logs")
	if q.err != nil {
		return q.err
	}
	if !remote.Upgradable(r) {
		return s.upgradeRequired(w, r)
	}
	engine := capability[runtime.Attacher](s.cfg.Engine)
	if engine == nil {
		return unsupported("attach")
	}
	st, err := s.container(r)
	if err != nil {
		return err
	}
	if err := s.allow(r, Action{Verb: VerbAttach, Container: st}); err != nil {
		return err
	}
	switch {
	case !st.Running:
		return conflict("container %s does not run: it is %s", st.Name, st.Status)
	case in && !st.OpenStdin:
		return conflict("container %s was made without an open input", st.Name)
	}
	opts := s.viewerOptions(r, remote.Options{Stdin: in, Stdout: out, Stderr: errOut && !st.TTY, TTY: tty})
	attach := func(viewer *remote.Session) error {
		return engine.Attach(viewer.Context(), st.ID, runtime.AttachSpec{TTY: tty, Logs: replay}, streamsOf(viewer))
	}
	if s.keeper.Wants(r) {
		// The container must not be stopped by output that nobody takes.
		return s.keep(w, r, opts, true, Action{Verb: VerbAttach, Container: st}, func() {}, attach)
	}
	viewer, err := remote.Accept(w, r, opts)
	if err != nil {
		return answered{err}
	}
	err = attach(viewer)
	viewer.Finish(err)
	return ended(viewer, err)
}

func (s *Service) viewerOptions(r *http.Request, opts remote.Options) remote.Options {
	opts.KeepAlive = s.cfg.KeepAlive
	opts.CheckOrigin = s.cfg.CheckOrigin
	opts.Fail = func(w http.ResponseWriter, status int, err error) {
		code := codeInvalid
		switch status {
		case http.StatusForbidden:
			code = codeDenied
		case http.StatusUpgradeRequired:
			code = codeUpgrade
		}
		writeStatus(w, r, status, code, err)
	}
	return opts
}

func (s *Service) upgradeRequired(w http.ResponseWriter, r *http.Request) error {
	err := errors.New("this is a stream: an upgrade to websocket or SPDY/3.1 is needed")
	w.Header().Set("Upgrade", "websocket, SPDY/3.1")
	writeStatus(w, r, http.StatusUpgradeRequired, codeUpgrade, err)
	return answered{err}
}

// streamsOf passes on only what the viewer asked for: a nil *T in an interface would not be nil.
func streamsOf(v *remote.Session) runtime.Streams {
	return runtime.Streams{In: v.Stdin, Out: v.Stdout, Err: v.Stderr, Resize: v.Resize}
}

// ended is what is observed of a stream: a process's exit code and a viewer that left are good ends.
func ended(v *remote.Session, err error) error {
	var exit *runtime.ExitError
	if err == nil || errors.As(err, &exit) || errors.Is(context.Cause(v.Context()), remote.ErrGone) && errors.Is(err, context.Canceled) {
		return nil
	}
	return answered{err}
}
