package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	goruntime "runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/cri-streaming/pkg/streaming/portforward"

	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/service/token"
)

const (
	// forwardIdle ends a port-forward of which nothing was heard for so long.
	forwardIdle = 4 * time.Hour
	// forwardCreation bounds the wait for the second stream of a connection.
	forwardCreation = 30 * time.Second
	// forwardDial bounds the dial to a port.
	forwardDial = 10 * time.Second
	// maxForwards are the connections of one request at once.
	maxForwards = 256
)

// forward is the kubelet's port-forward: SPDY with a pair of streams a connection, or WebSocket with the ports in the
// query.
func (h *Handler) forward(w http.ResponseWriter, r *http.Request, c *caller) error {
	namespace, pod := r.PathValue("ns"), r.PathValue("pod")
	if err := c.mayPod(token.VerbForward, namespace, pod); err != nil {
		return err
	}
	p, err := h.cfg.Pods.GetPod(namespace, pod)
	if err == nil && r.PathValue("uid") != "" && p.UID != r.PathValue("uid") {
		err = runtime.NoPodError(namespace, pod)
	}
	if err != nil {
		return err
	}
	t, ok := networkOf(p)
	if !ok {
		return &runtime.Error{Kind: runtime.ErrConflict, Message: "nothing of pod " + namespace + "/" + pod + " runs"}
	}
	if c.Container != "" {
		return c.refuse(token.VerbForward, t, "the token is for one container, and a port is that of a pod")
	}
	upgrade := strings.TrimSpace(r.Header.Get("Upgrade"))
	if !strings.EqualFold(upgrade, "websocket") && !strings.EqualFold(upgrade, "SPDY/3.1") {
		w.Header().Set("Upgrade", "websocket, SPDY/3.1")
		return &refusal{http.StatusUpgradeRequired, "this is a stream: an upgrade to websocket or SPDY/3.1 is needed"}
	}
	options, err := portforward.NewV4Options(r)
	if err != nil {
		return invalid(err.Error())
	}
	if len(options.Ports) > maxForwards {
		return invalid(fmt.Sprintf("%d ports: %d are the most", len(options.Ports), maxForwards))
	}
	c.log(token.VerbForward, t).Info("allowed")
	ctx, cancel := context.WithCancel(r.Context())
	f := &forwarder{ctx: ctx, handler: h, target: t, slots: make(chan struct{}, maxForwards)}
	portforward.ServePortForward(w, r, f, pod, t.UID, options, forwardIdle, forwardCreation, portforward.SupportedProtocols)
	cancel() // the client is gone: so are its connections
	f.close()
	return nil
}

// networkOf returns whatever of a pod holds its network.
func networkOf(p *runtime.Pod) (Target, bool) {
	if p.Sandbox != nil && p.Sandbox.IsRunning() {
		return targetOf(p.Sandbox), true
	}
	for _, c := range p.All {
		if c.IsRunning() {
			return targetOf(c), true
		}
	}
	return Target{}, false
}

// A forwarder makes the connections of one request.
type forwarder struct {
	ctx     context.Context //nolint:containedctx // the library gives none that ends
	handler *Handler
	target  Target
	slots   chan struct{}

	mu      sync.Mutex // guards closed, and that nothing begins after it
	closed  bool
	running sync.WaitGroup
}

func (f *forwarder) close() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.running.Wait()
}

// PortForward connects a stream with a port until both ways have ended, one has broken, or the client is gone.
func (f *forwarder) PortForward(_ context.Context, _, _ string, port int32, stream io.ReadWriteCloser) error {
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return errors.New("the request has ended")
	}
	f.running.Add(1)
	f.mu.Unlock()
	defer f.running.Done()
	select {
	case f.slots <- struct{}{}:
		defer func() { <-f.slots }()
	default:
		return fmt.Errorf("%d connections are open already", maxForwards)
	}
	ctx, cancel := context.WithTimeout(f.ctx, forwardDial)
	to, err := f.handler.cfg.Dial(ctx, f.target, int(port))
	cancel()
	if err != nil {
		return err
	}
	defer to.Close()
	defer context.AfterFunc(f.ctx, func() { _ = to.Close() })()
	in := make(chan error, 1)
	go func() { // it ends with the stream, which ends with the request
		_, err := io.Copy(to, stream)
		if c, ok := to.(interface{ CloseWrite() error }); ok && err == nil {
			err = c.CloseWrite()
		} else {
			_ = to.Close()
		}
		in <- err
	}()
	_, err = io.Copy(stream, to)
	_ = stream.Close() // the client reads the end
	select {
	case inErr := <-in:
		err = errors.Join(err, inErr)
	case <-f.ctx.Done():
	case <-time.After(forwardLinger):
	}
	if f.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// forwardLinger is how long a client may go on sending after the port has said all.
const forwardLinger = 10 * time.Second

// A Dialer connects to ports of containers.
type Dialer struct {
	// Proc is where the host's /proc is seen; "" is this process's own.
	Proc string
}

// Dial connects to a port as a process of the container would, on its loopback: that needs CAP_SYS_ADMIN and the host's
// processes to be seen. Without them it connects to the address of the pod, where only what listens there is reached.
func (d *Dialer) Dial(ctx context.Context, t Target, port int) (net.Conn, error) {
	text := strconv.Itoa(port)
	var inside error
	if !t.HostNet && t.Pid > 0 {
		var conn net.Conn
		if conn, inside = d.inside(ctx, t.Pid, text); inside == nil {
			return conn, nil
		}
		if !errors.Is(inside, os.ErrPermission) && !errors.Is(inside, os.ErrNotExist) {
			return nil, unreachable(port, inside)
		}
	}
	address := t.IP
	if t.HostNet {
		address = "127.0.0.1"
	}
	if address == "" {
		return nil, unreachable(port, errors.Join(errors.New("the pod has no address"), inside))
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(address, text))
	if err != nil {
		return nil, unreachable(port, err)
	}
	return conn, nil
}

func unreachable(port int, err error) error {
	return &runtime.Error{Kind: runtime.ErrUnavailable, Message: fmt.Sprintf("port %d: %v", port, err), Cause: err}
}

// inside dials from the network of a process. A socket belongs to the network in which it was made, so that only a thread
// has to go there, which is thrown away.
func (d *Dialer) inside(ctx context.Context, pid int, port string) (net.Conn, error) {
	proc := d.Proc
	if proc == "" {
		proc = "/proc"
	}
	ns, err := os.Open(fmt.Sprintf("%s/%d/ns/net", proc, pid))
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result, 1)
	go func() {
		goruntime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- result{err: os.NewSyscallError("setns", err)}
			return
		}
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", port))
		if err != nil {
			if conn6, err6 := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort("::1", port)); err6 == nil {
				conn, err = conn6, nil
			}
		}
		done <- result{conn, err}
	}()
	r := <-done // the dial ends with ctx
	return r.conn, r.err
}
