package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/time/rate"
)

// DefaultCommands is the white list of a node whose configuration names none (app.logs.cmd-white-list).
func DefaultCommands() []string {
	return []string{"grep", "zgrep", "cat", "head", "tail", "awk", "uniq", "sort", "ls"}
}

// Config says what a [Service] serves. Roots is required.
type Config struct {
	Prefix     string   // where the host's root is mounted, "" is the process's own
	Roots      []string // app.logs.root and further ones: absolute directories, as the host knows them
	StdinRoots []string // app.logs.stdin-roots: where echo TEXT >> FILE may append; none by default
	Commands   []string // app.logs.cmd-white-list; nil is DefaultCommands
	Limits     Limits
	Pods       Pods   // serves the logs of pods by name, pod:NAME/CONTAINER/FILE; may be nil
	SpillDir   string // where sort spills to; "" is the system's directory for temporary files
	Awk        AwkCommand
}

// A Service runs commands on the log files of a node. It is safe for concurrent use.
type Service struct {
	cfg      Config
	jail     Jail
	append   Jail
	rules    atomic.Pointer[rules]
	programs map[string]program
	watches  *watches
	buffers  *buffers
	blocks   *sync.Pool
}

// rules are what [Service.Reload] may change. A command keeps those that it began with.
type rules struct {
	commands []string
	limits   Limits
}

// New checks cfg and touches no file.
func New(cfg Config) (*Service, error) {
	if len(cfg.Roots) == 0 {
		return nil, errors.New("log service: no root directory")
	}
	for _, r := range slices.Concat(cfg.Roots, cfg.StdinRoots) {
		if !path.IsAbs(r) || path.Clean(r) == "/" {
			return nil, fmt.Errorf("log service: root %q: want an absolute directory other than /", r)
		}
	}
	s := &Service{
		cfg: cfg, programs: programs(), buffers: newBuffers(), blocks: newBlockPool(),
		jail:   Jail{Prefix: cfg.Prefix, Roots: cfg.Roots, Pods: cfg.Pods},
		append: Jail{Prefix: cfg.Prefix, Roots: cfg.StdinRoots},
	}
	if err := s.Reload(cfg.Commands, cfg.Limits); err != nil {
		return nil, err
	}
	s.watches = newWatches(s.jail)
	return s, nil
}

// Reload replaces the white list and the limits, with the meaning that they have in [Config]. Commands that run go on
// under the old ones. After an error everything is as it was.
func (s *Service) Reload(commands []string, limits Limits) error {
	if commands == nil {
		commands = DefaultCommands()
	}
	for _, c := range commands {
		if _, ok := s.programs[c]; !ok {
			return fmt.Errorf("log service: app.logs.cmd-white-list: there is no command %q", c)
		}
	}
	s.rules.Store(&rules{commands: slices.Clone(commands), limits: limits.withDefaults()})
	return nil
}

// Close ends all follows and waits for their watchers.
func (s *Service) Close() error { return s.watches.close() }

func (s *Service) open(name string) (*os.File, error) { return s.jail.Open(name) }

// pace returns what paces the output of one command, or nil.
func (l Limits) pace() *rate.Limiter {
	if l.ByteRate <= 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(l.ByteRate), int(max(l.ByteRate, blockSize)))
}

// runAppend carries out echo TEXT >> FILE.
func (s *Service) runAppend(p *Pipeline) (Result, error) {
	text, err := echoText(p.Stages[0].Args)
	if err != nil {
		return Result{ExitCode: 2}, err
	}
	if err := s.Append(p.Append.Text, []byte(text)); err != nil {
		return Result{ExitCode: 1}, err
	}
	return Result{}, nil
}

// Append appends data to an existing file below the stdin roots, in one write.
func (s *Service) Append(name string, data []byte) error {
	f, err := s.append.OpenAppend(name)
	if err != nil {
		if errors.Is(err, ErrOutside) {
			return &Refusal{Reason: fmt.Sprintf("%s is not below app.logs.stdin-roots", name)}
		}
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// follows tells whether a pipeline runs until its viewer goes away.
func follows(p *Pipeline) bool {
	if p.Stages[0].Name != "tail" {
		return false
	}
	opts, _, err := tailOptions.parse("tail", p.Stages[0].Args, obsoleteTail)
	return err == nil && slices.ContainsFunc(opts, func(o option) bool { return strings.EqualFold(o.name, "f") })
}

// A counter is the end of a pipeline: it counts and paces what goes to the sink, and cuts it at the ends of lines.
type counter struct {
	w    io.Writer
	ctx  context.Context
	rate *rate.Limiter

	mu      sync.Mutex // guards stopped, and keeps a late write out of the sink
	stopped bool
	rest    []byte // a line whose end has not come yet

	bytes, lines int64 // read only after the last write
}

// Write gives whole lines to the sink. A line that is longer than a block is given in pieces.
func (c *counter) Write(p []byte) (int, error) {
	if err := waitFor(c.ctx, c.rate, len(p)); err != nil {
		return 0, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n := len(p)
	if len(c.rest) > 0 {
		end := lineEnd(p, 0)
		c.rest = append(c.rest, p[:end]...)
		p = p[end:]
		if c.rest[len(c.rest)-1] != '\n' && len(c.rest) < blockSize {
			return n, nil
		}
		if err := c.give(c.rest); err != nil {
			return 0, err
		}
		c.rest = nil
	}
	whole := bytes.LastIndexByte(p, '\n') + 1
	if len(p)-whole >= blockSize {
		whole = len(p)
	}
	if whole > 0 {
		if err := c.give(p[:whole]); err != nil {
			return 0, err
		}
	}
	if whole < len(p) {
		c.rest = bytes.Clone(p[whole:])
	}
	return n, nil
}

// give writes to the sink. Callers hold mu.
func (c *counter) give(p []byte) error {
	if c.stopped {
		return context.Cause(c.ctx)
	}
	n, err := c.w.Write(p)
	c.bytes += int64(n)
	c.lines += int64(countLines(p[:n]))
	return err
}

// finish gives what is there of a last line without an end.
func (c *counter) finish() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	rest := c.rest
	c.rest = nil
	if len(rest) == 0 || c.stopped {
		return nil
	}
	return c.give(rest)
}

// waitFor waits until pace, which may be nil, lets n bytes through.
func waitFor(ctx context.Context, pace *rate.Limiter, n int) error {
	for ; pace != nil && n > 0; n -= blockSize {
		if err := pace.WaitN(ctx, min(n, blockSize)); err != nil {
			if cause := context.Cause(ctx); cause != nil {
				return cause
			}
			return &LimitError{Key: "app.logs.byte-rate", Limit: fmt.Sprintf("%.0f bytes a second; the rest takes too long", float64(pace.Limit()))}
		}
	}
	return nil
}

// stop lets no more output through.
func (c *counter) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopped = true
}
