package runtime

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"
)

// A ModelSource is what an engine tells the pod model. The processes and files of containers come from its [Execer] and
// [Copier].
type ModelSource interface {
	Type() string
	Ping(ctx context.Context) error
	// ModelList lists all containers and, where they are something else, the sandboxes.
	ModelList(ctx context.Context) ([]*EngineSimpleContainer, error)
	// ModelDetail tells all that is known of one of them by its full id; ErrNotFound if it is gone.
	ModelDetail(ctx context.Context, id string) (*EngineDetailContainer, error)
}

// A ModelEngine is an engine as the pod model uses it. Its methods are safe for concurrent use.
type ModelEngine struct {
	source ModelSource
	exec   Execer
	copier Copier
	watch  Watcher
}

var (
	_ ContainerEngine = (*ModelEngine)(nil)
	_ Watcher         = (*ModelEngine)(nil)
)

// NewModelEngine returns the model's view of an engine; what the engine does not offer is ErrUnsupported.
func NewModelEngine(source ModelSource) *ModelEngine {
	m := &ModelEngine{source: source}
	m.exec, _ = source.(Execer)
	m.copier, _ = source.(Copier)
	m.watch, _ = source.(Watcher)
	return m
}

// Init asks the engine whether it is there.
func (m *ModelEngine) Init(ctx context.Context) error { return m.source.Ping(ctx) }

// Type names the engine.
func (m *ModelEngine) Type() string { return m.source.Type() }

// ListAllContainers lists all containers, running or not.
func (m *ModelEngine) ListAllContainers(ctx context.Context) ([]*EngineSimpleContainer, error) {
	return m.source.ModelList(ctx)
}

// GetContainerDetail tells all that the engine knows of a container.
func (m *ModelEngine) GetContainerDetail(ctx context.Context, cid string) (*EngineDetailContainer, error) {
	return m.source.ModelDetail(ctx, cid)
}

// Supports tells what the engine can do.
func (m *ModelEngine) Supports(feature ContainerEngineFeature) bool {
	return feature == ContainerEngineFeatureCopy && m.copier != nil
}

// Watch streams what happens to containers, as the engine's own Watch does.
func (m *ModelEngine) Watch(ctx context.Context, since time.Time) iter.Seq2[Notice, error] {
	if m.watch == nil {
		return func(yield func(Notice, error) bool) { yield(Notice{}, m.lacks("streams no events")) }
	}
	return m.watch.Watch(ctx, since)
}

func (m *ModelEngine) lacks(what string) error {
	return &Error{Kind: ErrUnsupported, Message: "the engine " + m.Type() + " " + what}
}

const (
	maxExecRequest   = 1 << 20
	defaultMaxOutput = 1 << 20
)

// check refuses what cannot be run, and returns the words of the command in one line.
func (m *ModelEngine) check(c *Container, req ExecRequest) (string, error) {
	if c == nil {
		return "", &Error{Op: "exec", Kind: ErrInvalid, Message: "container is nil"}
	}
	if m.exec == nil {
		return "", m.lacks("runs no processes in containers")
	}
	size := 0
	for _, list := range [][]string{req.Cmd, req.Env} {
		for _, s := range list {
			size += len(s)
		}
	}
	if size >= maxExecRequest {
		return "", &Error{Op: "exec", Kind: ErrInvalid, Message: fmt.Sprintf("a command and environment of %d bytes: %d is the most", size, maxExecRequest)}
	}
	return strings.Join(req.Cmd, " "), nil
}

func execSpec(req ExecRequest) ExecSpec {
	return ExecSpec{Cmd: req.Cmd, Env: req.Env, User: req.User, WorkingDir: req.WorkingDir}
}

// Exec runs a process and waits for its end. A code other than 0 is no error. When ctx ends, so does the process.
func (m *ModelEngine) Exec(ctx context.Context, c *Container, req ExecRequest) (ExecResult, error) {
	cmd, err := m.check(c, req)
	if err != nil {
		return ExecResult{Cmd: cmd, ExitCode: -1}, err
	}
	limit := req.MaxOutput
	if limit <= 0 {
		limit = defaultMaxOutput
	}
	out, errOut := &limited{limit: limit}, &limited{limit: limit}
	err = m.exec.Exec(ctx, c.Id, execSpec(req), Streams{In: req.Input, Out: out, Err: errOut})
	result := ExecResult{
		Cmd: cmd, Stdout: &out.buf, Stderr: &errOut.buf, StdoutTruncated: out.truncated, StderrTruncated: errOut.truncated,
	}
	result.ExitCode, err = exitCode(err)
	return result, err
}

// exitCode takes the code out of what Exec returned: -1 if there is none.
func exitCode(err error) (int, error) {
	var exit *ExitError
	switch {
	case err == nil:
		return 0, nil
	case errors.As(err, &exit):
		return exit.Code, nil
	default:
		return -1, err
	}
}

// A limited buffer keeps the beginning of what is written.
type limited struct {
	buf       bytes.Buffer
	limit     int
	truncated bool
}

func (l *limited) Write(p []byte) (int, error) {
	keep := p[:min(len(p), l.limit-l.buf.Len())]
	l.buf.Write(keep)
	l.truncated = l.truncated || len(keep) < len(p)
	return len(p), nil
}

// ExecAsync starts a process; see [ExecAsyncResult]. Of each stream so much is kept for a reader that a process with
// little output ends though nobody has read yet.
func (m *ModelEngine) ExecAsync(ctx context.Context, c *Container, req ExecRequest) (ExecAsyncResult, error) {
	cmd, err := m.check(c, req)
	if err != nil {
		return ExecAsyncResult{Cmd: cmd}, err
	}
	out, errOut := newBufferedPipe(defaultMaxOutput), newBufferedPipe(defaultMaxOutput)
	result := make(chan ExecAsyncResultCode, 1)
	go func() { // it ends with the process or ctx, whether or not anybody takes the result
		stop := context.AfterFunc(ctx, func() {
			out.end(context.Cause(ctx))
			errOut.end(context.Cause(ctx))
		})
		err := m.exec.Exec(ctx, c.Id, execSpec(req), Streams{In: req.Input, Out: out, Err: errOut})
		stop()
		out.end(nil)
		errOut.end(nil)
		code, err := exitCode(err)
		result <- ExecAsyncResultCode{Code: code, Err: err}
		close(result)
	}()
	return ExecAsyncResult{Cmd: cmd, Result: result, Stdout: reader{out}, Stderr: reader{errOut}}, nil
}
