package service

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/service/containerlog"
	"github.com/droverhq/drover/service/remote"
	"github.com/droverhq/drover/service/resume"
)

// An Engine is what the service must have of a container engine. What else it can do (runtime.Execer, Attacher,
// LogReader, Statser, Copier, Toper, Watcher, Infoer) is found by type assertion, and refused where it is missing.
type Engine interface {
	State(ctx context.Context, id string) (runtime.ContainerStatus, error)
	List(ctx context.Context, opts runtime.ListOptions) ([]runtime.ContainerSummary, error)
}

// Config is what a [Service] needs. A zero number or duration is the default.
type Config struct {
	Engine Engine
	// HostStats samples the host; nil leaves the host out of the stats.
	HostStats func(context.Context) (runtime.Stats, error)
	// Root is where the host's file system is seen, for reading logs from their files: "" or "/host".
	Root string
	// Policy decides whether an action is allowed; an error refuses it, and is told to the caller. nil allows everything.
	Policy func(context.Context, Action) error
	// Observe is told of every request when it ends: what it was, "ok" or the code of the error, and how long it took.
	Observe func(verb, result string, took time.Duration)
	Log     logrus.FieldLogger
	Images  Images

	ExecSlots int           // processes being started at once in one container: 2
	ExecQueue int           // and waiting for it: 64
	Grace     time.Duration // between SIGHUP and SIGKILL for a process whose viewer is gone: 5 s
	KeepAlive time.Duration // between frames to an idle viewer: 20 s
	// Keep says how long streams wait for a viewer whose connection broke, and how many. See package resume.
	Keep remote.KeepOptions
	// CheckOrigin decides about the WebSockets of browsers; nil admits those of the same origin.
	CheckOrigin func(*http.Request) bool
}

// Verbs of an [Action].
const (
	VerbExec    = "exec"
	VerbAttach  = "attach"
	VerbLogs    = "logs"
	VerbStats   = "stats"
	VerbRead    = "files.read"
	VerbWrite   = "files.write"
	VerbTop     = "top"
	VerbEvents  = "events"
	VerbForward = "forward"
	VerbResume  = "resume" // is observed only: the policy is asked about the stream's own verb again

	VerbBuild      = "images.build"
	VerbImageRead  = "images.read"
	VerbImageWrite = "images.write"
)

// An Action is what a request asks for.
type Action struct {
	Verb      string
	Container runtime.ContainerStatus // zero for actions on the host
	Exec      *runtime.ExecSpec       // of exec
	Path      string                  // of files
	Port      int                     // of forward
	Request   *http.Request
}

// A Service serves the streams of one host.
type Service struct {
	cfg     Config
	mux     *http.ServeMux
	logs    *containerlog.Reader
	limit   *limiter
	keeper  *remote.Keeper
	samples *sampler
	notices *broadcast

	ctx     context.Context //nolint:containedctx // of detached processes; Close ends it
	cancel  context.CancelFunc
	mu      sync.Mutex // guards closed, and that nothing is started after it
	closed  bool
	workers sync.WaitGroup
}

// New returns a service and does no I/O.
func New(cfg Config) (*Service, error) {
	if cfg.Engine == nil || cfg.Log == nil {
		return nil, errors.New("service: an engine and a logger are needed")
	}
	cfg.ExecSlots = cmp.Or(cfg.ExecSlots, 2)
	cfg.ExecQueue = cmp.Or(cfg.ExecQueue, 64)
	if cfg.ExecSlots < 1 || cfg.ExecQueue < 0 {
		return nil, fmt.Errorf("service: %d slots and a queue of %d for processes", cfg.ExecSlots, cfg.ExecQueue)
	}
	s := &Service{cfg: cfg, mux: http.NewServeMux(), limit: newLimiter(cfg.ExecSlots, cfg.ExecQueue), keeper: remote.NewKeeper(cfg.Keep)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.logs = containerlog.New(containerlog.Config{
		Containers: cfg.Engine, Fallback: capability[runtime.LogReader](cfg.Engine), Root: cfg.Root, DataRoot: dataRoot(cfg.Engine),
	})
	if st := capability[runtime.Statser](cfg.Engine); st != nil {
		s.samples = newSampler(st)
	}
	if w := capability[runtime.Watcher](cfg.Engine); w != nil {
		s.notices = newBroadcast(w)
	}
	s.handle("GET /v1/exec/{container}", VerbExec, s.serveExec)
	s.handle("POST /v1/exec/{container}", VerbExec, s.serveExec)
	s.handle("GET /v1/attach/{container}", VerbAttach, s.serveAttach)
	s.handle("POST /v1/attach/{container}", VerbAttach, s.serveAttach)
	s.handle("GET "+resume.Path+"{session}", VerbResume, s.serveResume)
	s.handle("GET /v1/logs/{container}", VerbLogs, s.serveLogs)
	s.handle("GET /v1/stats", VerbStats, s.serveStats)
	s.handle("GET /v1/stats/{container}", VerbStats, s.serveStats)
	s.handle("GET /v1/files/{container}/{path...}", VerbRead, s.serveFile) // HEAD too
	s.handle("PUT /v1/files/{container}/{path...}", VerbWrite, s.putFile)
	s.handle("GET /v1/tail/{container}", VerbRead, s.serveTail)
	s.handle("GET /v1/tail/{container}/{path...}", VerbRead, s.serveTail)
	s.handle("GET /v1/top/{container}", VerbTop, s.serveTop)
	s.handle("GET /v1/events", VerbEvents, s.serveEvents)
	s.handle("GET /v1/forward/{container}/{port}", VerbForward, s.serveForward)
	s.routeImages()
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, r, notFound("no such path: %s", r.URL.Path))
	})
	return s, nil
}

// capability returns e as a T, or a nil T.
func capability[T any](e Engine) T {
	t, _ := e.(T)
	return t
}

// dataRoot asks the engine where its data is, once.
func dataRoot(e Engine) func(context.Context) (string, error) {
	informed := capability[runtime.Infoer](e)
	if informed == nil {
		return nil
	}
	var mu sync.Mutex
	root := ""
	return func(ctx context.Context) (string, error) {
		mu.Lock()
		defer mu.Unlock()
		if root != "" {
			return root, nil
		}
		info, err := informed.Info(ctx)
		if err == nil {
			root = info.RootDir
		}
		return root, err
	}
}

// Close ends what is left of detached processes' streams, which go on themselves, and the streams that wait for their
// viewers to come back, whose processes are ended, and waits for all of it. Requests are ended by their server.
func (s *Service) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.workers.Wait()
	return nil
}

// spawn runs f until Close, or reports false if the service is closed.
func (s *Service) spawn(f func(ctx context.Context)) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.workers.Go(func() { f(s.ctx) })
	return true
}

// ServeHTTP implements [http.Handler].
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// handle registers a route. Its handler returns an error instead of answering one.
func (s *Service) handle(pattern, verb string, h func(http.ResponseWriter, *http.Request) error) {
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		started := time.Now()
		rec := &recorder{ResponseWriter: w}
		err := s.protected(verb, func() error { return h(rec, r) })
		if s.cfg.Observe != nil {
			s.cfg.Observe(verb, result(err), time.Since(started))
		}
		var told answered
		if err == nil || errors.As(err, &told) {
			return
		}
		if r.Context().Err() == nil {
			s.cfg.Log.WithError(err).WithFields(logrus.Fields{"verb": verb, "container": r.PathValue("container")}).Debug("request failed")
		}
		if !rec.begun {
			writeError(rec, r, err)
		} else if !rec.taken {
			panic(http.ErrAbortHandler) // what was sent must not look whole
		}
	})
}

// protected calls f and turns a panic into an error.
func (s *Service) protected(verb string, f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil && p != http.ErrAbortHandler { //nolint:errorlint // net/http compares it so
			s.cfg.Log.WithField("verb", verb).Errorf("panic: %v\n%s", p, debug.Stack())
			err = errors.New("internal error")
		} else if p != nil {
			panic(p)
		}
	}()
	return f()
}

// allow asks the policy.
func (s *Service) allow(r *http.Request, a Action) error {
	if s.cfg.Policy == nil {
		return nil
	}
	a.Request = r
	if err := s.cfg.Policy(r.Context(), a); err != nil {
		return &denied{err}
	}
	return nil
}

// container returns the state of the container that the path names.
func (s *Service) container(r *http.Request) (runtime.ContainerStatus, error) {
	return s.cfg.Engine.State(r.Context(), r.PathValue("container"))
}

// A recorder knows whether an answer has begun.
type recorder struct {
	http.ResponseWriter
	begun bool
	taken bool // hijacked
}

// Unwrap is for http.ResponseController.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Hijack implements http.Hijacker.
func (w *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.begun, w.taken = true, true
	}
	return conn, rw, err
}

// FlushError is for http.ResponseController: a flush begins the answer too.
func (w *recorder) FlushError() error {
	err := http.NewResponseController(w.ResponseWriter).Flush()
	w.begun = w.begun || !errors.Is(err, http.ErrNotSupported)
	return err
}

func (w *recorder) WriteHeader(status int) {
	w.begun = true
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(p []byte) (int, error) {
	w.begun = true
	return w.ResponseWriter.Write(p)
}
