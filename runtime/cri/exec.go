package cri

import (
	"context"
	"sync"

	criv1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/droverhq/drover/runtime"
)

// Exec runs a process through the runtime's streaming server. CRI has no user, environment or working directory for
// it, so these are set by a shell in the container. When ctx ends, or a writer fails, the process's input is closed and
// it is ended from the host: SIGHUP, and SIGKILL after the grace; that needs this process to see the host's processes.
func (e *Engine) Exec(ctx context.Context, id string, spec runtime.ExecSpec, streams runtime.Streams) error {
	op := "exec in container " + id
	c, err := e.find(ctx, id)
	if err != nil {
		return err
	}
	if len(spec.Cmd) == 0 {
		return &runtime.Error{Op: op, Kind: runtime.ErrInvalid, Message: "no command given"}
	}
	if spec.Privileged {
		return unsupported("a CRI runtime runs no privileged process in a container")
	}
	if err := running(c, op); err != nil {
		return err
	}
	req := &criv1.ExecRequest{
		ContainerId: c.GetId(), Cmd: wrap(spec), Tty: spec.TTY, Stdin: streams.In != nil, Stdout: true, Stderr: !spec.TTY,
	}
	resp, err := e.rt.Exec(ctx, req)
	if err != nil {
		return e.fail(ctx, op, err)
	}
	if spec.Size != nil {
		first, cancel := context.WithCancel(ctx)
		defer cancel()
		streams.Resize = withFirst(first, *spec.Size, streams.Resize)
	}
	var watch *processWatch
	if !spec.Keep {
		watch = e.watchProcess(ctx, c.GetId())
	}
	var helpers sync.WaitGroup
	help, done := context.WithCancel(ctx)
	if streams.In != nil {
		in := &input{from: streams.In}
		streams.In = in
		helpers.Go(func() { e.relieve(help, c.GetId(), in) })
	}
	s := session{tty: spec.TTY, streams: streams}
	left, err := s.run(ctx, resp.GetUrl())
	done()
	helpers.Wait()
	if watch != nil {
		watch.finish(left, spec.Grace)
	}
	return e.fail(ctx, op, err)
}

// Attach attaches to the first process of a running container. Ending it leaves the process alone.
func (e *Engine) Attach(ctx context.Context, id string, spec runtime.AttachSpec, streams runtime.Streams) error {
	op := "attaching to container " + id
	c, err := e.find(ctx, id)
	if err != nil {
		return err
	}
	if err := running(c, op); err != nil {
		return err
	}
	resp, v, err := e.status(ctx, c.GetId())
	if err != nil {
		return err
	}
	if !v.Config.Stdin {
		streams.In = nil
	}
	if spec.Logs && streams.In == nil && resp.GetStatus().GetLogPath() != "" {
		// The log alone has every line once, where it and the stream would meet at no certain point.
		if spec.Attached != nil {
			spec.Attached()
		}
		return e.Logs(ctx, c.GetId(), runtime.LogOptions{Follow: true}, streams.Out, streams.Err)
	}
	if spec.Logs {
		if err := e.Logs(ctx, c.GetId(), runtime.LogOptions{}, streams.Out, streams.Err); err != nil {
			return err
		}
	}
	at, err := e.rt.Attach(ctx, &criv1.AttachRequest{
		ContainerId: c.GetId(), Tty: v.Config.Tty, Stdin: streams.In != nil, Stdout: true, Stderr: !v.Config.Tty,
	})
	if err != nil {
		return e.fail(ctx, op, err)
	}
	s := session{tty: v.Config.Tty, streams: streams, connected: spec.Attached}
	_, err = s.run(ctx, at.GetUrl())
	return e.fail(ctx, op, err)
}

// running is ErrConflict unless the container runs.
func running(c *criv1.Container, op string) error {
	if c.GetState() != criv1.ContainerState_CONTAINER_RUNNING {
		return &runtime.Error{Op: op, Kind: runtime.ErrConflict, Message: "it does not run"}
	}
	return nil
}

// asUser starts "$@" as the user $1, by whichever program of the container can.
const asUser = `u=$1; shift
if [ "$u" = "$(id -u)" ] || [ "$u" = "$(id -un 2>/dev/null)" ]; then exec "$@"; fi
case $u in
*[!0-9:]*) if command -v su >/dev/null; then exec su -s /bin/sh -c 'exec "$@"' "${u%%:*}" -- sh "$@"; fi ;;
*) if command -v chpst >/dev/null; then exec chpst -u ":${u%%:*}:${u##*:}" "$@"; fi
   if setpriv --help 2>&1 | grep -q reuid; then exec setpriv --reuid="${u%%:*}" --regid="${u##*:}" --clear-groups "$@"; fi
   if command -v start-stop-daemon >/dev/null && grep -q "^[^:]*:[^:]*:${u%%:*}:" /etc/passwd; then
      exec start-stop-daemon -S -q -p /proc/none -c "${u%%:*}:${u##*:}" -x /bin/sh -- -c 'exec "$@"' sh "$@"; fi ;;
esac
echo "nothing in this container can run a process as user $u" >&2; exit 126`

// wrap puts what CRI cannot say into the command itself. Values are arguments, never part of a script.
func wrap(spec runtime.ExecSpec) []string {
	cmd := spec.Cmd
	if spec.User != "" {
		cmd = append([]string{"/bin/sh", "-c", asUser, "sh", spec.User}, cmd...)
	}
	if len(spec.Env) > 0 {
		cmd = append(append([]string{"env"}, spec.Env...), cmd...)
	}
	if spec.WorkingDir != "" {
		cmd = append([]string{"/bin/sh", "-c", `cd "$1" || exit 126; shift; exec "$@"`, "sh", spec.WorkingDir}, cmd...)
	}
	return cmd
}

// withFirst puts one size before those of next. Its goroutine ends with ctx or with next.
func withFirst(ctx context.Context, first runtime.TerminalSize, next <-chan runtime.TerminalSize) <-chan runtime.TerminalSize {
	out := make(chan runtime.TerminalSize, 1)
	out <- first
	if next == nil {
		close(out)
		return out
	}
	go func() {
		defer close(out)
		for {
			select {
			case <-ctx.Done():
				return
			case size, ok := <-next:
				if !ok {
					return
				}
				select {
				case out <- size:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	return out
}
