package cli

import (
	"context"
	"iter"
	"maps"
	"regexp"
	"strconv"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/droverhq/drover/hostinfo/oom"
	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/runtime/pods"
)

// actionOOMKill is the action of a notice of a process that the kernel killed.
const actionOOMKill = "oom-kill"

// The labels that such a notice has beside those of the container.
const (
	labelOOMProcess = "io.drover.oom.process"
	labelOOMPid     = "io.drover.oom.pid"
	labelOOMLimit   = "io.drover.oom.limit" // the control group whose limit it was; "/" is the machine's memory
)

// oomQueue is how many kills may wait for somebody who watches; the oldest are lost then.
const oomQueue = 64

// An oomFeed turns what the kernel logs into notices of containers. It is a [runtime.Watcher] that remembers nothing.
type oomFeed struct {
	device string // "" is none
	store  *pods.Store
	log    logrus.FieldLogger

	mu       sync.Mutex // guards watchers
	watchers map[chan runtime.Notice]struct{}
}

func newOOMFeed(device string, store *pods.Store, log logrus.FieldLogger) *oomFeed {
	if device == "-" {
		device = ""
	}
	return &oomFeed{device: device, store: store, log: log, watchers: map[chan runtime.Notice]struct{}{}}
}

// run reads the kernel's log until ctx ends. Where it cannot be read, that is said once.
func (f *oomFeed) run(ctx context.Context) {
	if f.device == "" {
		return
	}
	if err := oom.Watch(ctx, f.device, f.told); err != nil {
		f.log.WithError(err).Warn("what is killed for want of memory is not told: see app.oom-kmsg-path")
	}
}

// containerID finds the id in the name of a control group: /docker/ID, docker-ID.scope, cri-containerd-ID.scope ...
var containerID = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`[0-9a-f]{64}`) })

// told makes a notice of a kill. One outside of every container is logged alone.
func (f *oomFeed) told(k oom.Kill) {
	limit := firstOf(k.Limit, "/")
	entry := f.log.WithFields(logrus.Fields{"process": k.Process, "pid": k.Pid, "cgroup": k.Cgroup, "limit": limit})
	ids := containerID().FindAllString(k.Cgroup, -1)
	if len(ids) == 0 {
		entry.Warn("killed for want of memory")
		return
	}
	n := runtime.Notice{ID: ids[len(ids)-1], Action: actionOOMKill, Time: k.Time, Labels: map[string]string{}}
	if c, err := f.store.GetContainerByCid(n.ID); err == nil {
		n.Name, n.Image, n.Labels = c.ContainerName, c.Image, maps.Clone(c.Labels)
		if n.Labels == nil {
			n.Labels = map[string]string{}
		}
		entry = entry.WithFields(logrus.Fields{"pod": c.Namespace + "/" + c.PodName, "container": c.K8sContainerName})
	}
	entry.WithField("id", runtime.ShortContainerId(n.ID)).Warn("killed for want of memory")
	n.Labels[labelOOMProcess], n.Labels[labelOOMPid], n.Labels[labelOOMLimit] = k.Process, strconv.Itoa(k.Pid), limit
	f.mu.Lock()
	defer f.mu.Unlock()
	for w := range f.watchers {
		select {
		case w <- n:
		default:
			select { // room is made by what is oldest
			case <-w:
			default:
			}
			select {
			case w <- n:
			default:
			}
		}
	}
}

// Watch implements [runtime.Watcher]: it yields kills from now on until ctx ends.
func (f *oomFeed) Watch(ctx context.Context, _ time.Time) iter.Seq2[runtime.Notice, error] {
	return func(yield func(runtime.Notice, error) bool) {
		w := make(chan runtime.Notice, oomQueue)
		f.mu.Lock()
		f.watchers[w] = struct{}{}
		f.mu.Unlock()
		defer func() {
			f.mu.Lock()
			delete(f.watchers, w)
			f.mu.Unlock()
		}()
		for {
			select {
			case <-ctx.Done():
				return
			case n := <-w:
				if !yield(n, nil) {
					return
				}
			}
		}
	}
}
