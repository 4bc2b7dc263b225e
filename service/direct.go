package service

import (
	"context"
	"io"
	"regexp"
	"time"

	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/service/containerlog"
)

// Allow asks the policy about an action that did not come as a request of this handler.
func (s *Service) Allow(ctx context.Context, a Action) error {
	if s.cfg.Policy == nil {
		return nil
	}
	if err := s.cfg.Policy(ctx, a); err != nil {
		return &denied{err}
	}
	return nil
}

// AllowVerb asks the policy about an action on the host that is nothing but its verb.
func (s *Service) AllowVerb(ctx context.Context, verb string) error {
	return s.Allow(ctx, Action{Verb: verb})
}

// Exec runs a process as the exec path does: under the policy, in its turn, and ended with ctx.
func (s *Service) Exec(ctx context.Context, id string, spec runtime.ExecSpec, streams runtime.Streams) error {
	engine := capability[runtime.Execer](s.cfg.Engine)
	if engine == nil {
		return unsupported("exec")
	}
	st, err := s.cfg.Engine.State(ctx, id)
	if err != nil {
		return err
	}
	if err := s.Allow(ctx, Action{Verb: VerbExec, Container: st, Exec: &spec}); err != nil {
		return err
	}
	if !st.Running || st.Paused {
		return conflict("container %s does not run: it is %s", st.Name, st.Status)
	}
	if spec.Grace == 0 {
		spec.Grace = s.cfg.Grace
	}
	leave, err := s.limit.enter(ctx, st.ID)
	if err != nil {
		return err
	}
	defer leave()
	return engine.Exec(ctx, st.ID, spec, started(leave, streams))
}

// Entries yields log entries as the logs path does, and tells yield whether the container has a terminal.
func (s *Service) Entries(ctx context.Context, id string, q containerlog.Query, yield func(tty bool, e *containerlog.Entry) error) error {
	st, err := s.cfg.Engine.State(ctx, id)
	if err != nil {
		return err
	}
	if err := s.Allow(ctx, Action{Verb: VerbLogs, Container: st}); err != nil {
		return err
	}
	return s.logs.Entries(ctx, st.ID, q, func(e *containerlog.Entry) error { return yield(st.TTY, e) })
}

// HostSample samples the host.
func (s *Service) HostSample(ctx context.Context) (runtime.Stats, error) {
	if err := s.Allow(ctx, Action{Verb: VerbStats}); err != nil {
		return runtime.Stats{}, err
	}
	if s.cfg.HostStats == nil {
		return runtime.Stats{}, unsupported("figures of the host")
	}
	return s.cfg.HostStats(ctx)
}

// ContainerSample samples a container; the sample may be half a second old.
func (s *Service) ContainerSample(ctx context.Context, id string) (runtime.Stats, error) {
	if s.samples == nil {
		return runtime.Stats{}, unsupported("stats")
	}
	if s.cfg.Policy != nil {
		st, err := s.cfg.Engine.State(ctx, id)
		if err == nil {
			err = s.Allow(ctx, Action{Verb: VerbStats, Container: st})
		}
		if err != nil {
			return runtime.Stats{}, err
		}
	}
	return s.samples.take(ctx, id, 500*time.Millisecond)
}

// Stats is ContainerSample under the name that an engine has for it.
func (s *Service) Stats(ctx context.Context, id string) (runtime.Stats, error) {
	return s.ContainerSample(ctx, id)
}

// ReadLogs writes a log as the logs path does. filter may be nil, and so may one of the writers.
func (s *Service) ReadLogs(ctx context.Context, id string, opts runtime.LogOptions, filter *regexp.Regexp, out, errOut io.Writer) error {
	st, err := s.cfg.Engine.State(ctx, id)
	if err != nil {
		return err
	}
	if err := s.Allow(ctx, Action{Verb: VerbLogs, Container: st}); err != nil {
		return err
	}
	return s.logs.Copy(ctx, st.ID, containerlog.Query{LogOptions: opts, Filter: filter}, out, errOut)
}

// copier finds the engine's files of a container, under the policy.
func (s *Service) copier(ctx context.Context, verb, id, name string) (runtime.Copier, runtime.ContainerStatus, error) {
	engine := capability[runtime.Copier](s.cfg.Engine)
	if engine == nil {
		return nil, runtime.ContainerStatus{}, unsupported("files")
	}
	st, err := s.cfg.Engine.State(ctx, id)
	if err == nil {
		err = s.Allow(ctx, Action{Verb: verb, Container: st, Path: name})
	}
	return engine, st, err
}

// StatFile tells what a path in a container is.
func (s *Service) StatFile(ctx context.Context, id, name string) (any, error) {
	engine, st, err := s.copier(ctx, VerbRead, id, name)
	if err != nil {
		return nil, err
	}
	stat, err := engine.StatPath(ctx, st.ID, name)
	if err != nil {
		return nil, err
	}
	return fileOf(name, stat), nil
}

// ListFiles tells what is in a directory of a container.
func (s *Service) ListFiles(ctx context.Context, id, name string) (files any, truncated bool, err error) {
	engine, st, err := s.copier(ctx, VerbRead, id, name)
	if err != nil {
		return nil, false, err
	}
	return s.list(ctx, engine, st, name)
}

// ReadFile returns a path of a container as a tar stream, which the caller closes.
func (s *Service) ReadFile(ctx context.Context, id, name string) (io.ReadCloser, error) {
	engine, st, err := s.copier(ctx, VerbRead, id, name)
	if err != nil {
		return nil, err
	}
	archive, _, err := engine.CopyFrom(ctx, st.ID, name)
	return archive, err
}

// WriteFiles unpacks a tar stream into a directory of a container.
func (s *Service) WriteFiles(ctx context.Context, id, dir string, tar io.Reader) error {
	engine, st, err := s.copier(ctx, VerbWrite, id, dir)
	if err != nil {
		return err
	}
	return engine.CopyTo(ctx, st.ID, dir, tar)
}

// State tells the state of a container.
func (s *Service) State(ctx context.Context, id string) (runtime.ContainerStatus, error) {
	return s.cfg.Engine.State(ctx, id)
}

// Running lists the containers that run.
func (s *Service) Running(ctx context.Context) ([]runtime.ContainerSummary, error) {
	return s.cfg.Engine.List(ctx, runtime.ListOptions{Running: true})
}
