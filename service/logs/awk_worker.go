package logs

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	goruntime "runtime"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/benhoyt/goawk/interp"
	"github.com/benhoyt/goawk/parser"
	"golang.org/x/sys/unix"
)

// The files of a worker beside the three that every process has.
const (
	workerJob     = 3 // what to do, as JSON, to its end
	workerReports = 4 // lines of JSON from the worker
)

// What a worker may hold beyond twice app.logs.sort-memory: a record of 10 MB is kept several times, and there is
// garbage. The hard limit is above the watch, so that the kernel ends only what is faster than that.
const (
	workerSlack     = 32 << 20
	workerHardSlack = 96 << 20
	workerFiles     = 16 // open at most
	workerProcs     = 2
)

// A workerTask is what a worker is told to do.
type workerTask struct {
	Program string
	Vars    []string // names and values by turns
	Memory  int64    // app.logs.sort-memory in bytes, 0 is no limit
	CPU     uint64   // seconds, 0 is no limit
}

// A workerReport is what a worker tells: one field is set, and the last report has End.
type workerReport struct {
	Read bool   `json:",omitempty"` // it has nothing left to read and waits for a block of input
	Err  string `json:",omitempty"` // a line of diagnostics
	End  *workerEnd
}

type workerEnd struct {
	Code  int
	Error string // of the program
	Over  bool   // it held more than it may
}

// AwkWorker is the main function of the process that runs one awk program for a [Service]. It limits what the process
// may use, takes its task from file 3 and reports to file 4, and returns the exit code of the process.
//
// Input comes in blocks, each after its length in four bytes, and each only when the program asks for it, so no file is
// opened that awk would not have read. Output is flushed before the program waits for input.
func AwkWorker() int {
	if err := work(); err != nil {
		fmt.Fprintf(os.Stderr, "awk worker: %s\n", err)
		return 1
	}
	return 0
}

func work() error {
	job := os.NewFile(workerJob, "job")
	data, err := io.ReadAll(job)
	if err != nil {
		return fmt.Errorf("it is started by the log service alone: %w", err)
	}
	_ = job.Close() // only read from
	var task workerTask
	if err := json.Unmarshal(data, &task); err != nil {
		return fmt.Errorf("task: %w", err)
	}
	// Where the node runs out of memory all the same, the kernel shall choose this process. Not every kernel has it.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0)
	if err := limitWorker(task); err != nil {
		return err
	}
	reports := json.NewEncoder(os.NewFile(workerReports, "reports"))
	end := interpret(task, reports)
	return reports.Encode(workerReport{End: &end})
}

// limitWorker takes from this process what an awk program does not need.
func limitWorker(task workerTask) error {
	goruntime.GOMAXPROCS(workerProcs)
	limits := map[int]uint64{unix.RLIMIT_FSIZE: 0, unix.RLIMIT_CORE: 0, unix.RLIMIT_NOFILE: workerFiles}
	if task.CPU > 0 {
		limits[unix.RLIMIT_CPU] = task.CPU
	}
	if task.Memory > 0 {
		base, err := dataSize()
		if err != nil {
			return err
		}
		limits[unix.RLIMIT_DATA] = base + 2*uint64(task.Memory) + workerHardSlack
		debug.SetMemoryLimit(2*task.Memory + workerSlack)
	}
	for what, n := range limits {
		if err := unix.Setrlimit(what, &unix.Rlimit{Cur: n, Max: n}); err != nil {
			return fmt.Errorf("set limit %d of the process: %w", what, err)
		}
	}
	return nil
}

// dataSize returns what the kernel counts against RLIMIT_DATA.
func dataSize() (uint64, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(status), "\nVmData:")
	number, _, ok := strings.Cut(strings.TrimSpace(rest), " kB")
	kb, err := strconv.ParseUint(number, 10, 50)
	if !ok || err != nil {
		return 0, errors.New("/proc/self/status: no VmData")
	}
	return kb << 10, nil
}

func interpret(task workerTask, reports *json.Encoder) workerEnd {
	program, err := parser.ParseProgram([]byte(task.Program), nil)
	if err != nil {
		return workerEnd{Code: 2, Error: err.Error()}
	}
	interpreter, err := interp.New(program)
	if err != nil {
		return workerEnd{Code: 2, Error: err.Error()}
	}
	ctx, over, stop := context.Background(), func() bool { return false }, func() {}
	if task.Memory > 0 {
		ctx, over, stop = boundMemory(ctx, 2*task.Memory+workerSlack)
	}
	out := bufio.NewWriterSize(os.Stdout, 64<<10)
	code, err := interpreter.ExecuteContext(ctx, &interp.Config{
		Stdin: &askingReader{in: os.Stdin, out: out, reports: reports}, Output: out, Error: reporter{reports}, Vars: task.Vars,
		Environ: []string{}, NoExec: true, NoFileWrites: true, NoFileReads: true,
	})
	stop()
	if ferr := out.Flush(); err == nil {
		err = ferr
	}
	switch {
	case over():
		return workerEnd{Code: 2, Over: true}
	case err != nil:
		return workerEnd{Code: 2, Error: err.Error()}
	}
	return workerEnd{Code: code}
}

// An askingReader asks for a block of input and reads it.
type askingReader struct {
	in      io.Reader
	out     *bufio.Writer
	reports *json.Encoder
	left    int
}

func (r *askingReader) Read(p []byte) (int, error) {
	if r.left == 0 {
		if err := r.out.Flush(); err != nil {
			return 0, err
		}
		if err := r.reports.Encode(workerReport{Read: true}); err != nil {
			return 0, err
		}
		var head [4]byte
		if _, err := io.ReadFull(r.in, head[:]); err != nil {
			return 0, err // io.EOF between blocks is the end
		}
		r.left = int(binary.BigEndian.Uint32(head[:]))
	}
	n, err := r.in.Read(p[:min(len(p), r.left)])
	r.left -= n
	return n, err
}

// A reporter reports awk's own diagnostics, each line in parts of a bounded size.
type reporter struct{ reports *json.Encoder }

func (w reporter) Write(p []byte) (int, error) {
	for line := range strings.Lines(string(p)) {
		line = strings.TrimSuffix(line, "\n")
		for {
			part := line[:min(len(line), maxDiagnostic)]
			if err := w.reports.Encode(workerReport{Err: part}); err != nil {
				return 0, err
			}
			if line = line[len(part):]; line == "" {
				break
			}
		}
	}
	return len(p), nil
}
