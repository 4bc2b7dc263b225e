package streamclient

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/droverhq/drover/runtime"
)

// Streams are the ends of a process at its viewer. A nil one is not asked for. With a TTY all output is on Stdout.
type Streams struct {
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	// Resize passes on the sizes of the terminal until it is closed by its owner. Only the newest counts.
	Resize <-chan runtime.TerminalSize
	// Gap, if not nil, is told of output that was lost in a cut of the network, in bytes.
	Gap func(bytes int64)
	// Started, if not nil, is called once, when the host has accepted the viewer.
	Started func()
}

// ExecOptions say what to run, and with which streams.
type ExecOptions struct {
	Streams

	Cmd        []string
	Env        []string // "NAME=VALUE"
	User       string
	WorkingDir string
	TTY        bool
	Privileged bool
	Size       *runtime.TerminalSize // first size of the terminal
	Keep       bool                  // the process goes on when its viewer is gone
	Grace      time.Duration         // between SIGHUP and SIGKILL when the viewer is gone; 0 is the host's choice
}

func (o *ExecOptions) query() url.Values {
	q := url.Values{"command": o.Cmd, "env": o.Env}
	set := func(name, value string) {
		if value != "" {
			q.Set(name, value)
		}
	}
	set("user", o.User)
	set("workDir", o.WorkingDir)
	flag(q, "privileged", o.Privileged)
	flag(q, "keep", o.Keep)
	if o.Grace > 0 {
		q.Set("grace", o.Grace.String())
	}
	if o.TTY && o.Size != nil {
		q.Set("cols", strconv.Itoa(int(o.Size.Width)))
		q.Set("rows", strconv.Itoa(int(o.Size.Height)))
	}
	return q
}

func flag(q url.Values, name string, on bool) {
	if on {
		q.Set(name, "1")
	}
}

// query asks for the streams that there are.
func (s *Streams) query(q url.Values, tty bool) {
	flag(q, "stdin", s.Stdin != nil)
	flag(q, "stdout", s.Stdout != nil || s.Stderr == nil)
	flag(q, "stderr", s.Stderr != nil && !tty)
	flag(q, "tty", tty)
}

// Exec runs a process in a container and blocks until it has ended and all of its output was written.
func (c *Client) Exec(ctx context.Context, container string, opts ExecOptions) error {
	q := opts.query()
	opts.Streams.query(q, opts.TTY)
	return c.view(ctx, of("exec", container), q, &opts.Streams)
}

// AttachOptions say how to attach.
type AttachOptions struct {
	Streams

	TTY  bool // the container has a terminal: it has only one output, and sizes are passed on
	Logs bool // replay the log first
}

// Attach connects with the main process of a container and blocks until that, or its output, has ended. The container
// goes on when ctx ends.
func (c *Client) Attach(ctx context.Context, container string, opts AttachOptions) error {
	q := url.Values{}
	opts.Streams.query(q, opts.TTY)
	flag(q, "logs", opts.Logs)
	return c.view(ctx, of("attach", container), q, &opts.Streams)
}

// Detached is what became of a process that nobody views.
type Detached struct {
	State    string `json:"state"`    // running, or ended where it did so at once
	ExitCode int    `json:"exitCode"` // of one that ended
}

// ExecDetached starts a process that nobody views. The streams, Keep and Grace of opts are not used.
func (c *Client) ExecDetached(ctx context.Context, container string, opts ExecOptions) (Detached, error) {
	q := opts.query()
	q.Set("detach", "1")
	flag(q, "tty", opts.TTY)
	req, err := c.request(ctx, http.MethodPost, of("exec", container), q)
	if err != nil {
		return Detached{}, err
	}
	resp, err := c.do(req)
	if err != nil {
		return Detached{}, err
	}
	defer resp.Body.Close()
	var d Detached
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxDocument)).Decode(&d); err != nil {
		return Detached{}, fmt.Errorf("streams: the answer to a detached exec is not the JSON that it should be: %w", err)
	}
	return d, nil
}
