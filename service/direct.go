package service

import (
	"context"
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

// State tells the state of a container.
func (s *Service) State(ctx context.Context, id string) (runtime.ContainerStatus, error) {
	return s.cfg.Engine.State(ctx, id)
}

// Running lists the containers that run.
func (s *Service) Running(ctx context.Context) ([]runtime.ContainerSummary, error) {
	return s.cfg.Engine.List(ctx, runtime.ListOptions{Running: true})
}
