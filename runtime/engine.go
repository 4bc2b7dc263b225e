package runtime

import (
	"context"
	"encoding/json"
	"io"
	"iter"
	"time"
)

// An Engine is everything that one container engine offers for a host. Only the composition root holds one; consumers
// declare the one to three methods that they use. Capabilities that not every engine has ([Volumes], [Builder] ...)
// are found by type assertion.
type Engine interface {
	// Type names the engine: "docker", "containerd", "cri-o" or "fake".
	Type() string
	Infoer
	Containers
	Images
	Watcher
	io.Closer
}

// An Infoer tells about the engine.
type Infoer interface {
	// Ping returns nil if the engine answers.
	Ping(ctx context.Context) error
	// Info asks the engine; it is never answered from a cache.
	Info(ctx context.Context) (Info, error)
}

// Containers is the life of containers. id may be a full id, an unambiguous prefix, or a name.
type Containers interface {
	// Create makes a container and does not start it. A missing image is ErrNotFound; nothing is pulled.
	Create(ctx context.Context, spec *ContainerSpec) (id string, warnings []string, err error)
	// Start starts a container; one that runs already is no error.
	Start(ctx context.Context, id string) error
	// Stop asks the container to end and kills it after timeout (nil: the container's own, else 10 s; rounded up to
	// seconds, 0 kills at once, less than 0 is ErrInvalid). One that does not run is no error.
	Stop(ctx context.Context, id string, timeout *time.Duration) error
	// Kill sends a signal ("" is SIGKILL); ErrConflict if the container does not run.
	Kill(ctx context.Context, id, signal string) error
	// Remove deletes a container.
	Remove(ctx context.Context, id string, opts RemoveOptions) error
	// Inspect returns what the engine knows, as the engine's own JSON, undecoded.
	Inspect(ctx context.Context, id string) (json.RawMessage, error)
	// State returns the decoded few facts that callers decide on.
	State(ctx context.Context, id string) (ContainerStatus, error)
	// List returns all containers that match, running or not.
	List(ctx context.Context, opts ListOptions) ([]ContainerSummary, error)
}

// Images is what every engine can do with images. ref is a reference or an image id.
type Images interface {
	// InspectImage returns the engine's own JSON, undecoded.
	InspectImage(ctx context.Context, ref string) (json.RawMessage, error)
	// ImageConfig returns the decoded few facts that callers decide on.
	ImageConfig(ctx context.Context, ref string) (ImageConfig, error)
	// Pull fetches an image. progress may be nil; it is called from one goroutine, and must not block. A stream that
	// ends early or carries an error is an error. There is no total timeout: a pull without any progress for
	// PullRequest.Inactivity fails.
	Pull(ctx context.Context, req PullRequest, progress func(PullProgress)) error
	// TagImage gives source a second name.
	TagImage(ctx context.Context, source, target string) error
	// RemoveImage removes a reference or, with force, an image that stopped containers use.
	RemoveImage(ctx context.Context, ref string, force bool) error
	// ListImages returns the images of the host.
	ListImages(ctx context.Context) ([]ImageSummary, error)
}

// Volumes is an optional capability.
type Volumes interface {
	CreateVolume(ctx context.Context, spec VolumeSpec) (Volume, error)
	// InspectVolume returns ErrNotFound for an unknown name.
	InspectVolume(ctx context.Context, name string) (Volume, error)
	RemoveVolume(ctx context.Context, name string, force bool) error
	ListVolumes(ctx context.Context) ([]Volume, error)
}

// A Builder builds images; an optional capability.
type Builder interface {
	// BuildRemote builds from a git or tar URL that the engine fetches itself. progress as in Pull.
	BuildRemote(ctx context.Context, remote, tag string, progress func(PullProgress)) error
}

// A Watcher streams what happens to containers.
type Watcher interface {
	// Watch yields notices from since on, in the engine's order, until ctx ends or the stream breaks. since has
	// nanoseconds and is inclusive: a notice of exactly that time is yielded again; zero is the moment of the call.
	// A break is yielded as the last element's error, the end of ctx is not. The caller reopens it with the time of
	// the last notice; an engine remembers only some hundred notices and none of before its own restart, so after a
	// break a List is due too.
	Watch(ctx context.Context, since time.Time) iter.Seq2[Notice, error]
}

// An Execer runs processes in running containers; an optional capability.
type Execer interface {
	// Exec runs a process and blocks until it ended and its output was delivered. A non-zero exit is *ExitError;
	// ErrConflict if the container does not run. When ctx ends, or a writer fails, the process is ended too (EOF,
	// SIGHUP, then SIGKILL after spec.Grace) unless spec.Keep, and the error is that of ctx or of the writer. A nil
	// stream is not attached. After the return no stream is written to; a Read of In may still be under way until
	// its owner ends it.
	Exec(ctx context.Context, id string, spec ExecSpec, streams Streams) error
}

// An Attacher attaches to the main process of a container; an optional capability.
type Attacher interface {
	// Attach blocks until the container ended, its output closed or ctx ended. It does not end the process. A container
	// that was not started yet may be attached to: no output is lost then.
	Attach(ctx context.Context, id string, spec AttachSpec, streams Streams) error
}

// A LogReader reads the output that a container has written; an optional capability.
type LogReader interface {
	// Logs writes log entries, in order, to out and errOut (a TTY container's all to out) until the end, or with
	// Follow until the container ended or ctx did.
	Logs(ctx context.Context, id string, opts LogOptions, out, errOut io.Writer) error
}

// A Statser samples resource use; an optional capability.
type Statser interface {
	// Stats returns one sample. Rates need two.
	Stats(ctx context.Context, id string) (Stats, error)
}

// A Copier copies files as tar streams; an optional capability.
type Copier interface {
	// CopyTo unpacks the tar stream into the directory path.
	CopyTo(ctx context.Context, id, path string, tar io.Reader) error
	// CopyFrom returns path as a tar stream, which the caller closes, and what the path itself is.
	CopyFrom(ctx context.Context, id, path string) (io.ReadCloser, FileStat, error)
	// StatPath tells what path is, without following a final symlink.
	StatPath(ctx context.Context, id, path string) (FileStat, error)
}

// A Toper lists the processes of a container; an optional capability.
type Toper interface {
	Top(ctx context.Context, id string, args []string) (titles []string, processes [][]string, err error)
}

// A Restarter stops and starts in one step; an optional capability.
type Restarter interface {
	// Restart starts a container again; timeout as in [Containers].Stop. One that does not run is started.
	Restart(ctx context.Context, id string, timeout *time.Duration) error
}

// A Pauser freezes the processes of a container; an optional capability.
type Pauser interface {
	// Pause returns ErrConflict if the container does not run or is paused already.
	Pause(ctx context.Context, id string) error
	// Unpause returns ErrConflict if the container is not paused.
	Unpause(ctx context.Context, id string) error
}

// A Waiter waits for containers; an optional capability.
type Waiter interface {
	// Wait blocks until the container does not run, which may be so already, and returns its exit code. There is no
	// timeout but ctx.
	Wait(ctx context.Context, id string) (exitCode int, err error)
}

// RemoveOptions says how Remove deletes.
type RemoveOptions struct {
	Force   bool // kill a running container first
	Volumes bool // remove its anonymous volumes too
}

// ListOptions narrows List; the zero value lists all containers.
type ListOptions struct {
	Running bool              // only running ones
	Labels  map[string]string // all must match; an empty value matches any
	Name    string            // exact name without "/"
	Raw     bool              // fill ContainerSummary.Raw
}
