package logs

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	goruntime "runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// An AwkCommand is how a process is started that does nothing but call [AwkWorker]. Without a Path awk is refused.
type AwkCommand struct {
	Path string
	Args []string // from the program's name on
}

const (
	pipeSize      = 64 << 10 // what Linux keeps in a pipe
	maxDiagnostic = 4 << 10  // bytes of a line of diagnostics
	maxReport     = 64 << 10 // of a report: JSON may write a byte as six
	maxCrash      = 8 << 10  // of what a worker's runtime says when it dies
)

// runWorker carries out task in a process of its own, which is gone when it returns, and gives it in as its input. A
// process has limits that the kernel keeps: an awk program doubles a string faster than any watch in this one.
func (e *env) runWorker(ctx context.Context, task workerTask, in *operandReader) (int, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if deadline, ok := ctx.Deadline(); ok {
		// The deadline comes first; this is for a worker that nobody kills.
		task.CPU = workerProcs*uint64(math.Ceil(max(time.Until(deadline), 0).Seconds())) + 2
	}
	w := &worker{e: e, in: in}
	data, err := json.Marshal(task)
	if err != nil {
		return 2, err
	}
	command := e.service.cfg.Awk
	cmd := exec.CommandContext(ctx, command.Path)
	cmd.Args, cmd.Dir, cmd.Env, cmd.Stderr = command.Args, "/", []string{}, &w.crash
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	pipes, err := newPipes(4)
	if err != nil {
		return 2, fmt.Errorf("awk: %w", err)
	}
	defer pipes.close()
	input, output, job, reports := pipes[0], pipes[1], pipes[2], pipes[3]
	cmd.Stdin, cmd.Stdout, cmd.ExtraFiles = input.r, output.w, []*os.File{job.r, reports.w}

	// The signal at the parent's death is one at the death of the thread that started it.
	goruntime.LockOSThread()
	defer goruntime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return 2, fmt.Errorf("awk: %w", err)
	}
	for _, f := range []*os.File{input.r, output.w, job.r, reports.w} {
		_ = f.Close() // the worker has them
	}
	var group errgroup.Group
	run := func(f func() error) {
		group.Go(func() error {
			err := guard(f)
			if err != nil {
				cancel(err)
			}
			return err
		})
	}
	run(func() error { return w.forward(output.r) })
	run(func() error {
		// A worker that is gone does not take its task; how it ended says why.
		if _, err := job.w.Write(data); err != nil && !errors.Is(err, syscall.EPIPE) {
			return err
		}
		_ = job.w.Close() // a pipe
		return w.serve(reports.r, input.w)
	})
	waitErr := cmd.Wait()
	if c, ok := e.stdin.(io.Closer); ok {
		_ = c.Close() // wakes the input, should it wait for a stage above
	}
	err = group.Wait()
	switch {
	case ctx.Err() != nil && (err != nil || w.end == nil):
		return 2, context.Cause(ctx)
	case w.end == nil && w.crash.outOfMemory(), w.end != nil && w.end.Over:
		return 2, &LimitError{Key: keySortMemory, Limit: fmt.Sprintf("%d MB", task.Memory>>20)}
	case w.end == nil:
		return 2, fmt.Errorf("awk: its process ended early: %s", w.crash.explain(waitErr)) // ends the stages above, too
	case w.end.Error != "":
		e.errf("%s", w.end.Error)
		return 2, nil
	}
	return max(w.end.Code, in.code), nil
}

// A worker is what this process knows of the one that runs awk.
type worker struct {
	e     *env
	in    *operandReader
	end   *workerEnd
	crash crashOutput
}

// forward gives the worker's output on, as it comes.
func (w *worker) forward(from io.Reader) error {
	buf := make([]byte, pipeSize)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if _, werr := w.e.out.Write(buf[:n]); werr != nil {
				return werr
			}
			if werr := w.e.out.Flush(); werr != nil {
				return werr
			}
		}
		if err != nil {
			return noEOF(err)
		}
	}
}

// serve takes the worker's reports until it ends, and gives it a block of input when it asks for one.
func (w *worker) serve(from io.Reader, to *os.File) error {
	var block []byte
	lines := bufio.NewScanner(from)
	lines.Buffer(nil, maxReport)
	for lines.Scan() {
		var report workerReport
		if err := json.Unmarshal(lines.Bytes(), &report); err != nil {
			return fmt.Errorf("awk: report: %w", err)
		}
		switch {
		case report.End != nil:
			w.end = report.End
		case report.Read:
			if block == nil {
				block = make([]byte, 4+pipeSize)
			}
			n, _ := w.in.Read(block[4:])
			if err := w.in.err; err != nil && !errors.Is(err, io.ErrClosedPipe) {
				return err
			}
			if n == 0 {
				_ = to.Close() // a pipe: the end of the input
				continue
			}
			binary.BigEndian.PutUint32(block, uint32(n))
			if _, err := to.Write(block[:4+n]); err != nil && !errors.Is(err, syscall.EPIPE) {
				return err
			}
		default:
			w.e.errf("%s", report.Err)
		}
	}
	return lines.Err()
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// A crashOutput keeps the beginning of what a worker's runtime says. awk itself cannot write there.
type crashOutput struct{ text []byte }

func (c *crashOutput) Write(p []byte) (int, error) {
	c.text = append(c.text, p[:min(len(p), maxCrash-len(c.text))]...)
	return len(p), nil
}

// explain words how a worker ended that gave no result.
func (c *crashOutput) explain(waitErr error) string {
	first, _, _ := strings.Cut(string(c.text), "\n")
	switch {
	case waitErr == nil:
		return "without a result"
	case first == "":
		return waitErr.Error()
	}
	return waitErr.Error() + ": " + first
}

// outOfMemory tells whether it died at the limit that the kernel keeps.
func (c *crashOutput) outOfMemory() bool {
	for line := range strings.Lines(string(c.text)) {
		line = strings.ToLower(line)
		for _, sign := range []string{
			"out of memory", "cannot allocate", "failed to allocate", "failed to create new os thread",
			"pthread_create failed", "cannot map pages", "cannot reserve",
		} {
			if strings.Contains(line, sign) {
				return true
			}
		}
	}
	return false
}

// A pipe may be closed twice.
type pipe struct{ r, w *os.File }

type pipes []pipe

func newPipes(n int) (pipes, error) {
	var all pipes
	for range n {
		r, w, err := os.Pipe()
		if err != nil {
			all.close()
			return nil, err
		}
		all = append(all, pipe{r, w})
	}
	return all, nil
}

func (all pipes) close() {
	for _, p := range all {
		_ = p.r.Close()
		_ = p.w.Close()
	}
}
