package multi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"sync"
	"time"

	"github.com/droverhq/drover/runtime"
)

// An Engine is several engines as one. It has every capability that concerns single containers; an engine that lacks one
// gives ErrUnsupported.
type Engine struct {
	engines []runtime.Engine
	cfg     Config

	mu    sync.Mutex
	owner map[string]int // by full id; forgotten as a whole when it has grown too much
}

// Config adds to the engines what they cannot tell.
type Config struct {
	// Resolve turns a name with a slash, "namespace/pod[/container]", into an id; nil knows none.
	Resolve func(name string) (string, error)
	// Watch are further sources of notices, as of the kernel.
	Watch []runtime.Watcher
}

var (
	_ runtime.Infoer    = (*Engine)(nil)
	_ runtime.Watcher   = (*Engine)(nil)
	_ runtime.Execer    = (*Engine)(nil)
	_ runtime.Attacher  = (*Engine)(nil)
	_ runtime.LogReader = (*Engine)(nil)
	_ runtime.Statser   = (*Engine)(nil)
	_ runtime.Copier    = (*Engine)(nil)
	_ runtime.Toper     = (*Engine)(nil)
	_ runtime.Limiter   = (*Engine)(nil)
)

// maxOwners bounds what is remembered of containers.
const maxOwners = 4096

// New returns the engines as one; the first is the one that Info tells of.
func New(cfg Config, engines ...runtime.Engine) (*Engine, error) {
	if len(engines) == 0 {
		return nil, errors.New("multi: no container engine")
	}
	return &Engine{engines: engines, cfg: cfg, owner: map[string]int{}}, nil
}

// Type names the engines.
func (m *Engine) Type() string {
	names := make([]string, len(m.engines))
	for i, e := range m.engines {
		names[i] = e.Type()
	}
	return strings.Join(names, "+")
}

// Close closes all engines.
func (m *Engine) Close() error {
	var errs []error
	for _, e := range m.engines {
		errs = append(errs, e.Close())
	}
	return errors.Join(errs...)
}

// Ping returns nil if all engines answer.
func (m *Engine) Ping(ctx context.Context) error {
	var errs []error
	for _, e := range m.engines {
		if err := e.Ping(ctx); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", e.Type(), err))
		}
	}
	return errors.Join(errs...)
}

// Info is that of the first engine, with the containers of all.
func (m *Engine) Info(ctx context.Context) (runtime.Info, error) {
	info, err := m.engines[0].Info(ctx)
	for _, e := range m.engines[1:] {
		if more, merr := e.Info(ctx); err == nil && merr == nil {
			info.Containers += more.Containers
			info.ContainersRunning += more.ContainersRunning
		}
	}
	return info, err
}

// List lists the containers of all engines that answer; an error if none does.
func (m *Engine) List(ctx context.Context, opts runtime.ListOptions) ([]runtime.ContainerSummary, error) {
	var all []runtime.ContainerSummary
	var errs []error
	for _, e := range m.engines {
		list, err := e.List(ctx, opts)
		all = append(all, list...)
		if err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) == len(m.engines) {
		return nil, errors.Join(errs...)
	}
	return all, nil
}

// State returns the facts of a container, of the first engine that knows it.
func (m *Engine) State(ctx context.Context, id string) (runtime.ContainerStatus, error) {
	_, st, err := m.find(ctx, id)
	return st, err
}

// find returns the engine of a container and its state.
func (m *Engine) find(ctx context.Context, id string) (runtime.Engine, runtime.ContainerStatus, error) {
	if strings.Contains(strings.TrimPrefix(id, "/"), "/") && m.cfg.Resolve != nil {
		full, err := m.cfg.Resolve(id)
		if err != nil {
			return nil, runtime.ContainerStatus{}, err
		}
		id = full
	}
	m.mu.Lock()
	first, known := m.owner[id]
	m.mu.Unlock()
	var missing, failed error
	for n := range m.engines {
		i := (first + n) % len(m.engines)
		st, err := m.engines[i].State(ctx, id)
		switch {
		case err == nil:
			if !known || n > 0 {
				m.remember(st.ID, i)
			}
			return m.engines[i], st, nil
		case errors.Is(err, runtime.ErrNotFound):
			missing = err
		default:
			failed = errors.Join(failed, err)
		}
	}
	if failed != nil {
		return nil, runtime.ContainerStatus{}, failed // it may be there
	}
	return nil, runtime.ContainerStatus{}, missing
}

func (m *Engine) remember(id string, i int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.owner) >= maxOwners {
		clear(m.owner)
	}
	m.owner[id] = i
}

// at returns the engine of a container as what can do T, and the full id.
func at[T any](ctx context.Context, m *Engine, id, what string) (T, string, error) {
	var none T
	if len(m.engines) == 1 && !strings.Contains(id, "/") {
		if t, ok := m.engines[0].(T); ok {
			return t, id, nil
		}
	}
	m.mu.Lock()
	i, known := m.owner[id]
	m.mu.Unlock()
	if known {
		if t, ok := m.engines[i].(T); ok {
			return t, id, nil
		}
	}
	e, st, err := m.find(ctx, id)
	if err != nil {
		return none, "", err
	}
	t, ok := e.(T)
	if !ok {
		return none, "", &runtime.Error{Kind: runtime.ErrUnsupported, Message: "the engine " + e.Type() + " does not offer " + what}
	}
	return t, st.ID, nil
}

// Exec runs a process in a container.
func (m *Engine) Exec(ctx context.Context, id string, spec runtime.ExecSpec, streams runtime.Streams) error {
	e, id, err := at[runtime.Execer](ctx, m, id, "exec")
	if err != nil {
		return err
	}
	return e.Exec(ctx, id, spec, streams)
}

// Attach attaches to a container.
func (m *Engine) Attach(ctx context.Context, id string, spec runtime.AttachSpec, streams runtime.Streams) error {
	e, id, err := at[runtime.Attacher](ctx, m, id, "attach")
	if err != nil {
		return err
	}
	return e.Attach(ctx, id, spec, streams)
}

// Logs reads what a container wrote.
func (m *Engine) Logs(ctx context.Context, id string, opts runtime.LogOptions, out, errOut io.Writer) error {
	e, id, err := at[runtime.LogReader](ctx, m, id, "logs")
	if err != nil {
		return err
	}
	return e.Logs(ctx, id, opts, out, errOut)
}

// Stats samples a container.
func (m *Engine) Stats(ctx context.Context, id string) (runtime.Stats, error) {
	e, id, err := at[runtime.Statser](ctx, m, id, "stats")
	if err != nil {
		return runtime.Stats{}, err
	}
	return e.Stats(ctx, id)
}

// CopyTo unpacks a tar stream in a container.
func (m *Engine) CopyTo(ctx context.Context, id, path string, tar io.Reader) error {
	e, id, err := at[runtime.Copier](ctx, m, id, "copying files")
	if err != nil {
		return err
	}
	return e.CopyTo(ctx, id, path, tar)
}

// CopyFrom packs a path of a container.
func (m *Engine) CopyFrom(ctx context.Context, id, path string) (io.ReadCloser, runtime.FileStat, error) {
	e, id, err := at[runtime.Copier](ctx, m, id, "copying files")
	if err != nil {
		return nil, runtime.FileStat{}, err
	}
	return e.CopyFrom(ctx, id, path)
}

// StatPath tells what a path of a container is.
func (m *Engine) StatPath(ctx context.Context, id, path string) (runtime.FileStat, error) {
	e, id, err := at[runtime.Copier](ctx, m, id, "copying files")
	if err != nil {
		return runtime.FileStat{}, err
	}
	return e.StatPath(ctx, id, path)
}

// Top lists the processes of a container.
func (m *Engine) Top(ctx context.Context, id string, args []string) (titles []string, processes [][]string, err error) {
	e, id, err := at[runtime.Toper](ctx, m, id, "top")
	if err != nil {
		return nil, nil, err
	}
	return e.Top(ctx, id, args)
}

// UpdateLimits changes the limits of a container.
func (m *Engine) UpdateLimits(ctx context.Context, id string, limits runtime.LimitsUpdate) error {
	e, id, err := at[runtime.Limiter](ctx, m, id, "changing limits")
	if err != nil {
		return err
	}
	return e.UpdateLimits(ctx, id, limits)
}

// Watch yields the notices of all engines; one that breaks ends it for all.
func (m *Engine) Watch(ctx context.Context, since time.Time) iter.Seq2[runtime.Notice, error] {
	watchers := append([]runtime.Watcher{}, m.cfg.Watch...)
	for _, e := range m.engines {
		watchers = append(watchers, e)
	}
	if len(watchers) == 1 {
		return watchers[0].Watch(ctx, since)
	}
	return func(yield func(runtime.Notice, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		type item struct {
			notice runtime.Notice
			err    error
		}
		items := make(chan item)
		var wait sync.WaitGroup
		defer wait.Wait()
		defer cancel()
		for _, w := range watchers {
			wait.Go(func() {
				for n, err := range w.Watch(ctx, since) {
					select {
					case items <- item{n, err}:
					case <-ctx.Done():
						return
					}
				}
			})
		}
		for {
			select {
			case <-ctx.Done():
				return
			case it := <-items:
				if !yield(it.notice, it.err) || it.err != nil {
					return
				}
			}
		}
	}
}
