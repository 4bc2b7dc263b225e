package node_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"k8s.io/client-go/tools/remotecommand"

	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/service/token"
)

// TestAttach sees the main process of a pod at the kubelet's path; the process goes on when its viewer has gone.
func TestAttach(t *testing.T) {
	r := newRig(t, true)
	ticking := []string{"sh", "-c", "while true; do echo tick; echo tock >&2; sleep 0.1; done"}
	ids := map[string]string{"docker": r.container("docker-attach", "app", func(s *runtime.ContainerSpec) { s.Cmd = ticking })}
	_, made := r.ctd.Pod(t, r.ns, "containerd-attach", map[string][]string{"app": ticking})
	ids["containerd"] = made["app"]
	r.store.Refresh()
	for _, pod := range []string{"docker-attach", "containerd-attach"} {
		eventually(t, "the map has "+pod, func() bool { _, err := r.store.GetPod(r.ns, pod); return err == nil })
	}
	r.everyWay(func(t *testing.T, engine, kind string) {
		path := "/attach/" + r.ns + "/" + engine + "-attach/app?output=1&error=1"
		ctx, cancel := context.WithCancel(bounded(t))
		defer cancel()
		out, errOut, done := &lockedBuffer{}, &lockedBuffer{}, make(chan error, 1)
		go func() {
			done <- r.executor(kind, path, r.all()).StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: out, Stderr: errOut})
		}()
		eventually(t, "both streams", func() bool {
			return strings.Count(out.String(), "tick\n") > 2 && strings.Count(errOut.String(), "tock\n") > 2
		})
		if strings.Contains(out.String(), "tock") || strings.Contains(errOut.String(), "tick") {
			t.Errorf("the streams are mixed: %.100q, %.100q", out.String(), errOut.String())
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		var other runtime.Engine = r.docker
		if engine == "containerd" {
			other = r.cri
		}
		if st, err := other.State(t.Context(), ids[engine]); err != nil || !st.Running {
			t.Errorf("the process ended with its viewer: %+v, %v", st, err)
		}
		exec := r.sign(token.Claims{Verbs: []string{token.VerbExec}})
		if err := r.executor(kind, path, exec).StreamWithContext(bounded(t), remotecommand.StreamOptions{Stdout: out, Stderr: errOut}); err == nil {
			t.Error("a token for exec attached")
		}
	})
}
