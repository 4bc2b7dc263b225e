package cri

import (
	"context"
	"errors"
	"fmt"
	"os"
	goruntime "runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	criv1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/droverhq/drover/runtime"
)

// Config says where the runtime is.
type Config struct {
	Socket string // path of the unix socket, with or without unix://
	// HostFS is where the host's root is mounted for this process; "" is its own. Log files and the roots of
	// containers are looked for below it.
	HostFS string
	// CallTimeout bounds a unary call whose ctx has no deadline; 0 is 30 s. Pulls are bounded by their inactivity.
	CallTimeout time.Duration
	// LogDir is where the runtime writes the logs of containers made through this engine, on the host; "" is
	// /var/log/pods.
	LogDir string
	// CgroupParent is the cgroup of sandboxes made through this engine; "" leaves it to the runtime.
	CgroupParent string
	// Poll is how often containers are looked at where the runtime has no event stream; 0 is 1 s.
	Poll time.Duration
}

// An Engine is a connection to a CRI runtime.
type Engine struct {
	cfg    Config
	conn   *grpc.ClientConn
	rt     criv1.RuntimeServiceClient
	images criv1.ImageServiceClient

	spawning spawns

	mu   sync.Mutex // guards name
	name string     // of the runtime, once it told
}

// The optional capabilities that a CRI runtime offers.
var (
	_ runtime.Engine    = (*Engine)(nil)
	_ runtime.Execer    = (*Engine)(nil)
	_ runtime.Attacher  = (*Engine)(nil)
	_ runtime.LogReader = (*Engine)(nil)
	_ runtime.Statser   = (*Engine)(nil)
	_ runtime.Copier    = (*Engine)(nil)
)

const maxMessage = 16 << 20 // of one gRPC message; containerd's own limit

// New returns an engine. It does no I/O: the connection is made by the first call, and made again when it is lost.
func New(cfg Config) (*Engine, error) {
	socket := strings.TrimPrefix(cfg.Socket, "unix://")
	if !strings.HasPrefix(socket, "/") {
		return nil, fmt.Errorf("CRI socket %q: want an absolute path", cfg.Socket)
	}
	if cfg.CallTimeout <= 0 {
		cfg.CallTimeout = 30 * time.Second
	}
	if cfg.LogDir == "" {
		cfg.LogDir = "/var/log/pods"
	}
	if cfg.Poll <= 0 {
		cfg.Poll = time.Second
	}
	cfg.Socket = socket
	e := &Engine{cfg: cfg}
	conn, err := grpc.NewClient("unix://"+socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 3 * time.Second},
			MinConnectTimeout: 3 * time.Second,
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithUnaryInterceptor(e.bound))
	if err != nil {
		return nil, fmt.Errorf("CRI socket %q: %w", cfg.Socket, err)
	}
	e.conn, e.rt, e.images = conn, criv1.NewRuntimeServiceClient(conn), criv1.NewImageServiceClient(conn)
	return e, nil
}

// bound gives every unary call a deadline.
func (e *Engine) bound(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if _, ok := ctx.Deadline(); !ok && !strings.HasSuffix(method, "/PullImage") {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, e.cfg.CallTimeout)
		defer cancel()
	}
	return invoke(ctx, method, req, reply, cc, opts...)
}

// Close ends the connection.
func (e *Engine) Close() error { return e.conn.Close() }

// Type names the runtime as it calls itself, "cri" before it was asked.
func (e *Engine) Type() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.name == "" {
		return "cri"
	}
	return e.name
}

// Ping asks for the version.
func (e *Engine) Ping(ctx context.Context) error {
	_, err := e.version(ctx)
	return err
}

func (e *Engine) version(ctx context.Context) (*criv1.VersionResponse, error) {
	v, err := e.rt.Version(ctx, &criv1.VersionRequest{})
	if err != nil {
		return nil, e.fail(ctx, "asking for the version", err)
	}
	e.mu.Lock()
	e.name = v.GetRuntimeName()
	e.mu.Unlock()
	return v, nil
}

// Info asks the runtime; what CRI does not tell of the host stays zero.
func (e *Engine) Info(ctx context.Context) (runtime.Info, error) {
	v, err := e.version(ctx)
	if err != nil {
		return runtime.Info{}, err
	}
	list, err := e.rt.ListContainers(ctx, &criv1.ListContainersRequest{})
	if err != nil {
		return runtime.Info{}, e.fail(ctx, "listing containers", err)
	}
	info := runtime.Info{
		ID: v.GetRuntimeName() + ":" + e.cfg.Socket, Version: v.GetRuntimeVersion(), APIVersion: v.GetRuntimeApiVersion(),
		OSType: "linux", LoggingDriver: "cri", Containers: len(list.GetContainers()),
	}
	for _, c := range list.GetContainers() {
		if c.GetState() == criv1.ContainerState_CONTAINER_RUNNING {
			info.ContainersRunning++
		}
	}
	e.host(&info)
	return info, nil
}

// host adds what CRI does not tell, as this process sees it. What cannot be read stays zero.
func (e *Engine) host(info *runtime.Info) {
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		info.Name, info.KernelVersion = unix.ByteSliceToString(uts.Nodename[:]), unix.ByteSliceToString(uts.Release[:])
		info.Architecture = unix.ByteSliceToString(uts.Machine[:])
	}
	info.CPUs = goruntime.NumCPU()
	info.MemoryBytes = int64(hostMemory())
	info.CgroupVersion = "1"
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		info.CgroupVersion = "2"
	}
	info.OperatingSystem = "Linux"
	release, _ := os.ReadFile(e.cfg.HostFS + "/etc/os-release")
	for line := range strings.Lines(string(release)) {
		if name, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
			info.OperatingSystem = strings.Trim(strings.TrimSpace(name), `"`)
		}
	}
}

// fail maps a gRPC error to the classes of package runtime, here and nowhere else.
func (e *Engine) fail(ctx context.Context, op string, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", op, context.Cause(ctx))
	}
	var ours *runtime.Error
	var exit *runtime.ExitError
	if errors.As(err, &ours) || errors.As(err, &exit) {
		return err
	}
	s := status.Convert(err)
	kind := map[codes.Code]error{
		codes.NotFound: runtime.ErrNotFound, codes.AlreadyExists: runtime.ErrConflict, codes.FailedPrecondition: runtime.ErrConflict,
		codes.InvalidArgument: runtime.ErrInvalid, codes.Unimplemented: runtime.ErrUnsupported, codes.Unavailable: runtime.ErrUnavailable,
		codes.DeadlineExceeded: runtime.ErrUnavailable,
	}[s.Code()]
	message := s.Message()
	if kind == nil && strings.Contains(message, "not found") { // containerd gives some of these as Unknown
		kind = runtime.ErrNotFound
	}
	if errors.Is(kind, runtime.ErrUnavailable) {
		message = "the container runtime at " + e.cfg.Socket + " does not answer"
	}
	return &runtime.Error{Op: op, Kind: kind, Message: message, Cause: err}
}

func unsupported(format string, args ...any) error {
	return &runtime.Error{Kind: runtime.ErrUnsupported, Message: fmt.Sprintf(format, args...)}
}
