package fake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/droverhq/drover/runtime"
)

// A Program is what a process does. It returns the exit code, and soon after ctx has ended: that is how a process gets
// a signal that it does not ignore.
type Program func(ctx context.Context, p *Process) int

// A Process is what a [Program] sees of itself. Its streams are never nil.
type Process struct {
	Container string // id
	Args      []string
	Env       []string
	Dir       string
	User      string
	TTY       bool
	Stdin     io.Reader
	Stdout    io.Writer
	Stderr    io.Writer

	files *files
	life  *life
}

// Ignore makes the process ignore signals, by number; SIGKILL cannot be ignored.
func (p *Process) Ignore(signals ...int) { p.life.ignore(signals) }

// Size is that of the terminal; zero without one.
func (p *Process) Size() runtime.TerminalSize { return p.life.terminal() }

// Getenv returns a variable of the process's environment.
func (p *Process) Getenv(key string) string {
	for _, entry := range slices.Backward(p.Env) {
		if k, v, _ := strings.Cut(entry, "="); k == key {
			return v
		}
	}
	return ""
}

// A life is the state of a process that others change: the signal that ends it and the size of its terminal.
type life struct {
	cancel context.CancelFunc
	onEnd  func()       // unblocks its reads
	spawn  func(func()) // runs what the process leaves in the background

	mu      sync.Mutex
	ignored []int
	signal  int // that ended it, or 0
	size    runtime.TerminalSize
}

func (l *life) ignore(signals []int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ignored = append(l.ignored, signals...)
}

func (l *life) terminal() runtime.TerminalSize {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.size
}

func (l *life) resize(size runtime.TerminalSize) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.size = size
}

// send delivers a signal. One that a process does not ignore ends it, unless its default is to do nothing.
func (l *life) send(signal int) {
	l.mu.Lock()
	harmless := slices.Contains([]int{0, int(unix.SIGCHLD), int(unix.SIGCONT), int(unix.SIGURG), int(unix.SIGWINCH)}, signal)
	if harmless || signal != int(unix.SIGKILL) && slices.Contains(l.ignored, signal) || l.signal != 0 {
		l.mu.Unlock()
		return
	}
	l.signal = signal
	l.mu.Unlock()
	l.cancel()
	l.onEnd()
}

func (l *life) kill() { l.send(int(unix.SIGKILL)) }

// code is the exit code of a process whose program returned n.
func (l *life) code(n int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.signal != 0 {
		return 128 + l.signal
	}
	return n & 0xff
}

// A mainProcess is the one of a container.
type mainProcess struct{ life }

// launch runs the main process of a container that was just started. e.mu is held.
func (e *Engine) launch(c *container) {
	c.proc = &mainProcess{life: life{cancel: func() {}, onEnd: func() {}, spawn: e.procs.Go}}
	proc, ended := c.proc, c.ended
	program := e.programs[baseCommand(c.command)]
	if program == nil || e.life.Err() != nil { // runs until it is signalled, and needs no goroutine for that
		proc.onEnd = func() { e.procs.Go(func() { e.exited(c, proc, ended, 0) }) }
		return
	}
	ctx, cancel := context.WithCancel(e.life)
	p := &Process{
		Container: c.id, Args: c.command, Env: c.spec.Env, Dir: workingDir(c.spec.WorkingDir), User: c.spec.User, TTY: c.spec.TTY,
		Stdin: strings.NewReader(""), Stdout: c.output.writer(streamOut), Stderr: c.output.writer(streamErr),
		files: c.files, life: &proc.life,
	}
	proc.cancel = cancel
	if in := c.stdinEnd; in != nil {
		p.Stdin = in
		proc.onEnd = func() { in.Close() }
	}
	if p.TTY {
		p.Stdout = crlf{c.output.writer(streamOut)}
		p.Stderr = p.Stdout
	}
	e.procs.Go(func() {
		n := program(ctx, p)
		cancel()
		proc.onEnd()
		e.exited(c, proc, ended, n)
	})
}

// exited records that the main process of c ended.
func (e *Engine) exited(c *container, proc *mainProcess, ended chan struct{}, n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if c.proc != proc || !c.running {
		return
	}
	c.exitCode = proc.code(n)
	c.status, c.running, c.paused, c.pid, c.ip, c.inspect = "exited", false, false, 0, "", nil
	c.finished = e.now()
	c.output.finish()
	e.notify(c, "die")
	close(ended)
	if c.spec.AutoRemove {
		e.remove(c, true)
	}
}

// signal sends a signal to the main process of a container that runs. e.mu is held.
func (e *Engine) signal(c *container, number int) { c.proc.send(number) }

// Exec runs a process in a running container. Commands that no [Program] is known for end with 127.
func (e *Engine) Exec(ctx context.Context, id string, spec runtime.ExecSpec, streams runtime.Streams) error {
	op := "exec in " + id
	if err := e.enter(ctx, "Exec", op); err != nil {
		return err
	}
	if len(spec.Cmd) == 0 {
		return &runtime.Error{Op: op, Kind: runtime.ErrInvalid, Message: "no command"}
	}
	e.mu.Lock()
	c, err := e.find(op, id)
	if err == nil && (!c.running || c.paused) {
		err = &runtime.Error{Op: op, Kind: runtime.ErrConflict, Message: "Container " + c.id + " is not running"}
	}
	if err != nil {
		e.mu.Unlock()
		return err
	}
	e.notify(c, "exec_create")
	e.notify(c, "exec_start")
	stopped := c.ended
	p := &Process{
		Container: c.id, Args: spec.Cmd, Env: mergeEnv(c.spec.Env, spec.Env), Dir: workingDir(c.spec.WorkingDir, spec.WorkingDir),
		User: c.spec.User, TTY: spec.TTY, files: c.files,
	}
	if spec.User != "" {
		p.User = spec.User
	}
	e.mu.Unlock()

	err = e.execute(ctx, p, spec, streams, stopped)
	e.mu.Lock()
	e.notify(c, "exec_die")
	e.mu.Unlock()
	if err != nil && !isExit(err) {
		return fmt.Errorf("%s: %w", op, err)
	}
	return err
}

// execute runs p until it ends, its container does, or ctx does.
func (e *Engine) execute(ctx context.Context, p *Process, spec runtime.ExecSpec, streams runtime.Streams, stopped <-chan struct{}) error {
	program := e.programs[baseCommand(p.Args)]
	if program == nil {
		program = notFound
	}
	running, cancel := context.WithCancel(e.life)
	kept := false
	defer func() {
		if !kept {
			cancel()
		}
	}()
	in, feed := io.Pipe()
	p.life = &life{cancel: cancel, onEnd: func() { in.Close() }, spawn: e.procs.Go}
	p.Stdin = strings.NewReader("")
	if streams.In != nil {
		p.Stdin = in
		go func() { // as long as a Read of the caller's takes; see runtime.Execer
			_, err := io.Copy(feed, streams.In)
			feed.CloseWithError(err)
		}()
	}
	out := &viewer{to: streams.Out, gone: make(chan struct{})}
	errOut := &viewer{to: streams.Err, gone: make(chan struct{})}
	p.Stdout, p.Stderr = out, errOut
	if spec.TTY {
		p.Stdout = crlf{out}
		p.Stderr = p.Stdout
		if spec.Size != nil {
			p.life.resize(*spec.Size)
		}
	}
	done := make(chan int, 1)
	e.procs.Go(func() {
		done <- program(running, p)
	})
	code, err := 0, error(nil)
	resize, lost := streams.Resize, e.lost()
	for waiting := true; waiting; {
		select {
		case code = <-done:
			waiting = false
		case size, ok := <-resize:
			if !ok {
				resize = nil
				continue
			}
			p.life.resize(size)
		case <-stopped:
			p.life.kill()
			stopped = nil
		case <-lost:
			err, waiting = broken(""), false
		case <-out.gone:
			err, waiting = out.err, false
		case <-errOut.gone:
			err, waiting = errOut.err, false
		case <-ctx.Done():
			err, waiting = ctx.Err(), false
		}
	}
	if err == nil {
		err = errors.Join(out.failure(), errOut.failure())
	}
	if err != nil {
		if kept = spec.Keep; !kept {
			finish(p.life, feed, spec.Grace, done)
		}
		out.detach()
		errOut.detach()
		return err
	}
	in.Close()
	if code = p.life.code(code); code != 0 {
		return &runtime.ExitError{Code: code}
	}
	return nil
}

// finish ends a process whose viewer is gone.
func finish(l *life, stdin *io.PipeWriter, grace time.Duration, done <-chan int) {
	if grace <= 0 {
		grace = 5 * time.Second
	}
	stdin.Close()
	for _, step := range []struct {
		signal int
		wait   time.Duration
	}{{0, 50 * time.Millisecond}, {int(unix.SIGHUP), grace}, {int(unix.SIGKILL), time.Minute}} {
		l.send(step.signal)
		timer := time.NewTimer(step.wait)
		select {
		case <-done:
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// A viewer is one output stream's reader. It says when it is gone, and swallows what nobody wants.
type viewer struct {
	mu   sync.Mutex
	to   io.Writer
	err  error
	gone chan struct{}
}

func (v *viewer) Write(p []byte) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.err != nil {
		return 0, v.err
	}
	if v.to == nil {
		return len(p), nil
	}
	n, err := v.to.Write(p)
	if err != nil {
		v.err = err
		close(v.gone)
	}
	return n, err
}

func (v *viewer) failure() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.err
}

func (v *viewer) detach() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.to = nil
}

// crlf is what a terminal makes of line ends.
type crlf struct{ to io.Writer }

func (c crlf) Write(p []byte) (int, error) {
	if _, err := io.WriteString(c.to, strings.ReplaceAll(string(p), "\n", "\r\n")); err != nil {
		return 0, err
	}
	return len(p), nil
}

func isExit(err error) bool {
	var exit *runtime.ExitError
	return errors.As(err, &exit)
}

func baseCommand(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0][strings.LastIndexByte(args[0], '/')+1:]
}

// workingDir is the last that is set.
func workingDir(dirs ...string) string {
	dir := "/"
	for _, d := range dirs {
		if d != "" {
			dir = d
		}
	}
	return dir
}

// signalNumber reads "9", "KILL" and "SIGKILL".
func signalNumber(name string) (int, bool) {
	if n, err := strconv.Atoi(name); err == nil {
		return n, n > 0 && n < 65
	}
	name = strings.ToUpper(name)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	n := unix.SignalNum(name)
	return int(n), n != 0
}
