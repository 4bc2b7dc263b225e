package logs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sync/errgroup"
)

// A Sink takes what a command says. Its methods are called from several goroutines, but Out from one at a time.
type Sink struct {
	// Out gets the output, as many lines a call as are there; a line may be cut between calls only if it is longer
	// than 256 KiB. It blocks the command, and an error ends it.
	Out io.Writer
	// Err gets one line of diagnostics, without a newline.
	Err func(line string)
}

// A Result is how a command ended.
type Result struct {
	ExitCode  int   // as the last stage's program gives it; 124 after a timeout
	ReadBytes int64 // from files
	OutBytes  int64
	OutLines  int64
}

// program carries out one stage and returns its exit code. An error is one that ends the whole command; what a program
// says about a file goes to env.errf.
type program func(ctx context.Context, e *env, args []Word) (int, error)

// env is what one stage sees.
type env struct {
	service *Service
	stdin   io.Reader // nil for the first stage
	out     *writer
	meter   *meter
	sink    Sink
	name    string
	limits  Limits
}

func (e *env) errf(format string, args ...any) {
	e.sink.Err(e.name + ": " + fmt.Sprintf(format, args...))
}

// programs is the table of what can be run at all; the white list narrows it.
func programs() map[string]program {
	return map[string]program{
		"cat": cat, "head": head, "tail": tail, "grep": grep, "egrep": egrep, "fgrep": fgrep, "zgrep": zgrep, "zcat": zcat,
		"sort": sortLines, "uniq": uniq, "wc": wc, "ls": ls, "awk": awk, "echo": echo, timeRange: keepTimes,
	}
}

// Check decides whether a pipeline may run: only allowed names. It does not look at files.
func (s *Service) Check(p *Pipeline) error {
	rules := s.rules.Load()
	for _, c := range p.Stages {
		if c.Name == timeRange || c.Name == "echo" && p.Append != nil {
			continue // no command line can name the one, and the stdin roots govern the other
		}
		if _, known := s.programs[c.Name]; !known || !slices.Contains(rules.commands, c.Name) {
			return &Refusal{
				Reason: fmt.Sprintf("%q is not among the allowed commands: %s", c.Name, strings.Join(rules.commands, " ")),
				Column: c.Column,
			}
		}
	}
	return nil
}

// Run carries out a pipeline and blocks until it ended and all its output was taken. A refusal, a limit and an error
// of the sink are returned as errors; what the commands themselves complain of goes to the sink and into the exit code.
func (s *Service) Run(ctx context.Context, p *Pipeline, sink Sink) (Result, error) {
	if err := s.Check(p); err != nil {
		return Result{ExitCode: 126}, err
	}
	if p.Append != nil {
		return s.runAppend(p)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	limits := s.rules.Load().limits
	if !follows(p) && limits.Timeout > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeoutCause(ctx, limits.Timeout, &LimitError{Key: keyTimeout, Limit: limits.Timeout.String()})
		defer stop()
	}
	counted := &counter{w: sink.Out, ctx: ctx, rate: limits.pace()}
	m := &meter{max: limits.MaxRead}
	codes := make([]int, len(p.Stages))
	var group errgroup.Group
	last := func() error { return nil }
	var stdin *io.PipeReader
	for i, c := range p.Stages {
		var w io.Writer = counted
		var next *io.PipeReader
		var pw *io.PipeWriter
		if i < len(p.Stages)-1 {
			next, pw = io.Pipe()
			w = pw
		}
		e := &env{service: s, out: &writer{w: w, pool: s.blocks}, meter: m, sink: sink, name: c.Name, limits: limits}
		in := stdin
		if in != nil {
			e.stdin = in
		}
		run, args := s.programs[c.Name], c.Args
		stage := func() error {
			var code int
			err := guard(func() (err error) { code, err = run(ctx, e, args); return err })
			if ferr := e.out.Flush(); err == nil {
				err = ferr
			}
			codes[i] = code
			if in != nil {
				_ = in.Close() // a stage above that still writes gets the error of a closed pipe
			}
			if pw != nil {
				_ = pw.Close()
			}
			if errors.Is(err, io.ErrClosedPipe) {
				return nil // the reader had enough, as head does
			}
			if err != nil {
				cancel(err)
			}
			return err
		}
		if len(p.Stages) == 1 { // a goroutine less for each idle follow
			last = stage
			break
		}
		group.Go(stage)
		stdin = next
	}
	stopOutput := context.AfterFunc(ctx, counted.stop)
	defer stopOutput()
	err := last()
	if werr := group.Wait(); err == nil {
		err = werr
	}
	if ferr := counted.finish(); err == nil {
		err = ferr
	}
	result := Result{ExitCode: codes[len(codes)-1], ReadBytes: m.read.Load(), OutBytes: counted.bytes, OutLines: counted.lines}
	if err == nil {
		return result, nil
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	result.ExitCode = 1
	var limit *LimitError
	var refusal *Refusal
	switch {
	case errors.As(err, &limit) && limit.Key == keyTimeout:
		result.ExitCode = 124
	case errors.As(err, &refusal):
		result.ExitCode = 2
	}
	return result, err
}

// A panicError is a mistake of ours that one command met.
type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string { return "internal error: the command was ended" }

// guard turns a panic of f into an error: a line that nobody thought of must not end the agent.
func guard(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &panicError{value: v, stack: debug.Stack()}
		}
	}()
	return f()
}

// open opens a named file for a stage, or its standard input for "-".
func (e *env) open(ctx context.Context, name string) (io.ReadCloser, error) {
	if name == "-" {
		if e.stdin == nil {
			return io.NopCloser(strings.NewReader("")), nil
		}
		return io.NopCloser(e.stdin), nil
	}
	f, err := e.service.open(name)
	if err != nil {
		return nil, err
	}
	return &metered{ctx: ctx, ReadCloser: f, meter: e.meter}, nil
}

// expand turns operands into file names: patterns that match nothing stay as they are, as in a shell. Without
// operands it is the standard input.
func (e *env) expand(operands []Word) ([]string, error) {
	if len(operands) == 0 {
		if e.stdin == nil {
			return nil, &Refusal{Reason: e.name + ": no file named"}
		}
		return []string{"-"}, nil
	}
	var names []string
	for _, w := range operands {
		name := w.Text
		if name != "-" {
			name = e.service.absolute(name)
		}
		if w.Pattern == "" {
			names = append(names, name)
			continue
		}
		found, err := e.service.jail.Glob(e.service.absolute(w.Pattern), e.limits.MaxFiles)
		var tooMany *LimitError
		if errors.As(err, &tooMany) {
			return nil, err
		}
		if err != nil {
			return nil, &Refusal{Reason: e.name + ": " + reason(err), Column: w.Column}
		}
		if len(found) == 0 {
			found = []string{name}
		}
		names = append(names, found...)
	}
	if limit := e.limits.MaxFiles; limit > 0 && len(names) > limit {
		return nil, &LimitError{Key: keyMaxFiles, Limit: fmt.Sprint(limit)}
	}
	return names, nil
}

// reason words an error as coreutils do.
func reason(err error) string {
	var pod *podError
	switch {
	case errors.As(err, &pod):
		return pod.text
	case errors.Is(err, fs.ErrNotExist):
		return "No such file or directory"
	case errors.Is(err, fs.ErrPermission):
		return "Permission denied"
	case errors.Is(err, syscall.ENOTDIR):
		return "Not a directory"
	case errors.Is(err, ErrOutside):
		return ErrOutside.Error()
	}
	var perr *fs.PathError
	if errors.As(err, &perr) {
		text := perr.Err.Error()
		if text == "is a directory" {
			return "Is a directory"
		}
		return text
	}
	return err.Error()
}

// fatal tells an error that ends the whole command from one of a file: limits, the end of ctx, a closed pipe.
func fatal(ctx context.Context, err error) bool {
	var limit *LimitError
	var refusal *Refusal
	return errors.As(err, &limit) || errors.As(err, &refusal) || ctx.Err() != nil || errors.Is(err, io.ErrClosedPipe) || errors.Is(err, errQuiet)
}
