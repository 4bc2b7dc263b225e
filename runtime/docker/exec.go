package docker

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/versions"

	"github.com/droverhq/drover/runtime"
)

// Exec runs a process in a running container. See [runtime.Execer] for how it ends.
func (e *Engine) Exec(ctx context.Context, id string, spec runtime.ExecSpec, streams runtime.Streams) error {
	op := "exec in " + shorten(id)
	id, err := containerID(op, id)
	if err != nil {
		return err
	}
	if len(spec.Cmd) == 0 || spec.Cmd[0] == "" {
		return invalid(op, "no command")
	}
	mark, err := e.mark(ctx, id, spec)
	if err != nil {
		return err
	}
	p := &process{engine: e, container: id, spec: spec, mark: mark}
	err = e.change(ctx, op, func(ctx context.Context, s *session) error {
		p.session = s
		created, err := s.api.ContainerExecCreate(ctx, id, p.options(streams))
		p.id = created.ID
		return err
	})
	if err != nil {
		return err
	}
	p.note()
	code, err := p.run(ctx, streams)
	p.done(errors.Is(err, errStuck))
	if err != nil {
		return e.wrapExec(ctx, op, err)
	}
	if code != 0 {
		return &runtime.ExitError{Code: code}
	}
	return nil
}

// wrapExec is wrapLong that keeps what is said of a process that could not be ended.
func (e *Engine) wrapExec(ctx context.Context, op string, err error) error {
	var stuck *runtime.Error
	if ctx.Err() != nil && errors.As(err, &stuck) {
		return &runtime.Error{Op: op, Message: ctx.Err().Error() + "; " + stuck.Message, Cause: err}
	}
	return e.wrapLong(ctx, op, err)
}

// A process is one exec of the daemon.
type process struct {
	engine    *Engine
	session   *session
	id        string // of the exec
	container string // as the caller named it
	spec      runtime.ExecSpec
	mark      string // "NAME=value" in the environment of the process, if it can only be found by that
}

// options maps the spec. Output is always attached, and thrown away if nobody wants it: the stream's end is how the
// end of the process is noticed.
func (p *process) options(streams runtime.Streams) container.ExecOptions {
	opts := container.ExecOptions{
		User:         p.spec.User,
		Privileged:   p.spec.Privileged,
		Tty:          p.spec.TTY,
		AttachStdin:  streams.In != nil,
		AttachStdout: true,
		AttachStderr: true,
		Env:          p.spec.Env,
		WorkingDir:   p.spec.WorkingDir,
		Cmd:          p.spec.Cmd,
		ConsoleSize:  p.consoleSize(),
	}
	if p.mark != "" {
		opts.Env = append(append([]string(nil), opts.Env...), p.mark)
	}
	return opts
}

func (p *process) consoleSize() *[2]uint {
	if !p.spec.TTY || p.spec.Size == nil {
		return nil
	}
	return &[2]uint{uint(p.spec.Size.Height), uint(p.spec.Size.Width)}
}

// run starts the process, serves its streams and returns its exit code.
func (p *process) run(ctx context.Context, streams runtime.Streams) (int, error) {
	// The connection outlives ctx: what the process still says while it is being ended is delivered.
	life, release := context.WithCancel(context.WithoutCancel(ctx))
	defer release()
	var resizer sync.WaitGroup
	defer resizer.Wait()
	defer release()
	if p.spec.TTY {
		// The daemon keeps a resize back until the process has started, so it is sent first: the shorter the time in
		// which the terminal has no size, the better.
		resizer.Go(func() { p.resize(life, streams.Resize) })
	}
	start := container.ExecStartOptions{Tty: p.spec.TTY}
	if versions.GreaterThanOrEqualTo(p.session.version, "1.42") {
		start.ConsoleSize = p.consoleSize()
	}
	impatient := context.AfterFunc(ctx, release)
	conn, err := p.engine.hijack(life, p.session, "/exec/"+p.id+"/start", "", start)
	if !impatient() || err != nil {
		if conn != nil {
			conn.Close()
		}
		if ended := ctx.Err(); ended != nil {
			return 0, errors.Join(ended, p.end(ctx, nil))
		}
		return 0, err
	}
	defer conn.Close()
	if streams.In != nil {
		go feed(conn, streams.In)
	}

	sink := &sinks{out: streams.Out, err: streams.Err}
	copied := make(chan error, 1)
	go func() { copied <- copyOutput(sink, p.spec.TTY, conn) }()
	select {
	case err = <-copied:
	case <-ctx.Done():
		stuck := p.end(ctx, conn)
		conn.Close()
		<-copied
		return 0, errors.Join(ctx.Err(), stuck)
	}
	if failed := sink.failure(); failed != nil {
		stuck := p.end(ctx, conn)
		return 0, &runtime.Error{Message: "write output: " + failed.Error(), Cause: errors.Join(failed, stuck)}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	code, err := p.wait(ctx)
	if ctx.Err() != nil {
		return 0, errors.Join(ctx.Err(), p.end(ctx, conn))
	}
	return code, err
}

// resize gives the terminal its first size and then those that come.
func (p *process) resize(ctx context.Context, sizes <-chan runtime.TerminalSize) {
	set := func(ctx context.Context, size runtime.TerminalSize) error {
		ctx, cancel := context.WithTimeout(ctx, p.engine.cfg.Timeout)
		defer cancel()
		return p.session.api.ContainerExecResize(ctx, p.id, resizeOptions(size))
	}
	if p.spec.Size != nil {
		for delay := 5 * time.Millisecond; delay < 200*time.Millisecond; delay *= 2 {
			if set(ctx, *p.spec.Size) == nil || !pause(ctx, delay) {
				break
			}
		}
	}
	if sizes != nil {
		resizeLoop(ctx, sizes, set)
	}
}

// execState is what the daemon knows of an exec. ExitCode is nil until it ended, and of one that never started.
type execState struct {
	Running     bool
	ExitCode    *int
	Pid         int
	ContainerID string
}

func (p *process) inspect(ctx context.Context) (execState, error) {
	ctx, cancel := p.engine.limit(ctx, p.engine.cfg.Timeout)
	defer cancel()
	var st execState
	err := p.engine.getJSON(ctx, p.session, "/exec/"+p.id+"/json", "", &st)
	return st, err
}

// wait returns the exit code of a process whose output has ended. It has nearly always ended itself by then; one that
// only closed its output is waited for as long as ctx lasts.
func (p *process) wait(ctx context.Context) (int, error) {
	delay, limbo := 5*time.Millisecond, 0
	for {
		st, err := p.inspect(ctx)
		switch {
		case errors.Is(err, runtime.ErrNotFound):
			return 0, &runtime.Error{Kind: runtime.ErrUnavailable, Message: "the daemon has forgotten the process: it was restarted, or the container removed"}
		case err != nil:
			return 0, err
		case !st.Running && st.ExitCode != nil && *st.ExitCode < 0:
			return 0, &runtime.Error{Message: "the daemon does not know how the process ended: exit code " + strconv.Itoa(*st.ExitCode)}
		case !st.Running && st.ExitCode != nil:
			return *st.ExitCode, nil
		case !st.Running:
			if limbo++; limbo > 8 {
				return 0, &runtime.Error{Kind: runtime.ErrConflict, Message: "the process did not start"}
			}
		}
		if !pause(ctx, delay) {
			return 0, ctx.Err()
		}
		delay = min(2*delay, time.Second)
	}
}

// pause waits, and reports false if ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// detached runs a process without streams and waits for its end; it is how signals get into a container whose
// processes this host does not show.
func (p *process) detached(ctx context.Context, cmd []string) (int, error) {
	helper := &process{engine: p.engine, session: p.session, container: p.container, spec: runtime.ExecSpec{Cmd: cmd, User: p.spec.User}}
	created, err := p.session.api.ContainerExecCreate(ctx, p.container, container.ExecOptions{User: p.spec.User, Privileged: p.spec.Privileged, Cmd: cmd})
	if err != nil {
		return 0, err
	}
	helper.id = created.ID
	resp, err := p.engine.request(ctx, p.engine.bounded, p.session, http.MethodPost, "/exec/"+helper.id+"/start", "", detachBody(),
		http.Header{"User-Agent": p.engine.header["User-Agent"], "Content-Type": {"application/json"}})
	if err != nil {
		return 0, err
	}
	resp.Body.Close()
	return helper.wait(ctx)
}
