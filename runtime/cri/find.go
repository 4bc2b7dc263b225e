package cri

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	criv1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/droverhq/drover/runtime"
)

// Labels that Kubernetes puts on containers and sandboxes.
const (
	labelContainer = "io.kubernetes.container.name"
	labelPod       = "io.kubernetes.pod.name"
	labelNamespace = "io.kubernetes.pod.namespace"
	labelUID       = "io.kubernetes.pod.uid"
)

// Labels and annotations of pods of one, which are made here. They are not shown: what a caller sees are its own.
const (
	ours              = "io.drover."
	labelStandalone   = ours + "standalone" // its value is the container's name
	labelSandbox      = ours + "sandbox"    // its value is that of the making, to find what a failed one left
	annotationCommand = ours + "command"
	annotationStop    = ours + "stop-timeout" // seconds
	annotationGrace   = "io.kubernetes.pod.terminationGracePeriod"
)

// labelsOf returns the labels but those that mark a pod of one.
func labelsOf(c *criv1.Container) map[string]string {
	l := c.GetLabels()
	if l[labelStandalone] == "" {
		return l
	}
	l = maps.Clone(l)
	maps.DeleteFunc(l, func(k, _ string) bool { return strings.HasPrefix(k, ours) })
	return l
}

// namesOf returns the names that a container can be found by: its own for a pod of one, else the one that dockershim
// gave, and namespace/pod/container.
func namesOf(c *criv1.Container) []string {
	l := c.GetLabels()
	if name := l[labelStandalone]; name != "" {
		return []string{name}
	}
	if l[labelPod] == "" {
		return []string{c.GetMetadata().GetName()}
	}
	return []string{
		fmt.Sprintf("k8s_%s_%s_%s_%s_%d", l[labelContainer], l[labelPod], l[labelNamespace], l[labelUID], c.GetMetadata().GetAttempt()),
		l[labelNamespace] + "/" + l[labelPod] + "/" + l[labelContainer],
	}
}

// validID is an id, a name, or namespace/pod/container.
var validID = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*(/[a-zA-Z0-9][a-zA-Z0-9_.-]*){0,2}$`)
})

const maxID = 1024 // longer than all that Kubernetes makes

// find returns the container of a full id, an unambiguous prefix of one, or a name.
func (e *Engine) find(ctx context.Context, id string) (*criv1.Container, error) {
	op := "finding container " + id[:min(len(id), 80)]
	id = strings.TrimPrefix(id, "/")
	if len(id) > maxID || !validID().MatchString(id) {
		return nil, &runtime.Error{Op: "finding a container", Kind: runtime.ErrInvalid, Message: fmt.Sprintf("%.80q is neither an id nor a name", id)}
	}
	list, err := e.rt.ListContainers(ctx, &criv1.ListContainersRequest{})
	if err != nil {
		return nil, e.fail(ctx, op, err)
	}
	var byPrefix []*criv1.Container
	var byName *criv1.Container
	for _, c := range list.GetContainers() {
		switch {
		case c.GetId() == id:
			return c, nil
		case slices.Contains(namesOf(c), id):
			if byName == nil || c.GetCreatedAt() > byName.GetCreatedAt() {
				byName = c
			}
		case strings.HasPrefix(c.GetId(), id):
			byPrefix = append(byPrefix, c)
		}
	}
	switch {
	case byName != nil:
		return byName, nil
	case len(byPrefix) == 1:
		return byPrefix[0], nil
	case len(byPrefix) > 1:
		return nil, &runtime.Error{Op: op, Kind: runtime.ErrInvalid, Message: fmt.Sprintf("%d containers have an id that begins so", len(byPrefix))}
	}
	return nil, &runtime.Error{Op: op, Kind: runtime.ErrNotFound, Message: "no such container: " + id}
}

// verbose is what containerd and CRI-O tell beside the status; what one of them leaves out stays zero.
type verbose struct {
	Pid         int    `json:"pid"`
	SandboxID   string `json:"sandboxID"`
	RuntimeType string `json:"runtimeType"`
	Config      struct {
		Tty   bool `json:"tty"`
		Stdin bool `json:"stdin"`
		Envs  []struct {
			Key   string `json:"key"`
			Value string `json:"value"`
		} `json:"envs"`
	} `json:"config"`
	RuntimeSpec struct {
		Hostname string `json:"hostname"`
		Process  struct {
			Terminal bool     `json:"terminal"`
			Env      []string `json:"env"`
		} `json:"process"`
		Root struct {
			Path string `json:"path"`
		} `json:"root"`
		Linux struct {
			Namespaces []struct {
				Type string `json:"type"`
				Path string `json:"path"`
			} `json:"namespaces"`
		} `json:"linux"`
	} `json:"runtimeSpec"`
}

// status asks for one container by its full id.
func (e *Engine) status(ctx context.Context, id string) (*criv1.ContainerStatusResponse, verbose, error) {
	var v verbose
	resp, err := e.rt.ContainerStatus(ctx, &criv1.ContainerStatusRequest{ContainerId: id, Verbose: true})
	if err != nil {
		return nil, v, e.fail(ctx, "inspecting container "+runtime.ShortContainerId(id), err)
	}
	if text := resp.GetInfo()["info"]; text != "" {
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			return nil, v, fmt.Errorf("verbose status of container %s: %w", runtime.ShortContainerId(id), err)
		}
	}
	return resp, v, nil
}

// Inspect returns {"Id": ..., "Name": ..., "status": ..., "info": ...}: the two that Docker's users know, and what
// crictl's do.
func (e *Engine) Inspect(ctx context.Context, id string) (json.RawMessage, error) {
	c, err := e.find(ctx, id)
	if err != nil {
		return nil, err
	}
	resp, _, err := e.status(ctx, c.GetId())
	if err != nil {
		return nil, err
	}
	st, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(resp.GetStatus())
	if err != nil {
		return nil, err
	}
	return inspection(c.GetId(), namesOf(c)[0], st, resp.GetInfo()), nil
}

// inspection joins a status and the verbose texts, which are JSON themselves where they can be.
func inspection(id, name string, status []byte, info map[string]string) json.RawMessage {
	b := strconv.AppendQuote([]byte(`{"Id":`), id)
	if name != "" {
		quoted, _ := json.Marshal(name) // a string always marshals
		b = append(append(b, `,"Name":`...), quoted...)
	}
	b = append(append(b, `,"status":`...), status...)
	b = append(b, `,"info":{`...)
	first := true
	for _, key := range slices.Sorted(maps.Keys(info)) {
		value := []byte(info[key])
		if !json.Valid(value) {
			value, _ = json.Marshal(info[key]) // a string always marshals
		}
		if key == "info" && len(info) == 1 { // containerd's only key: no need to nest it
			return append(append(append(b[:len(b)-1], value...), '}'), nil...)
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(strconv.AppendQuote(b, key), ':')
		b = append(b, value...)
	}
	return append(b, "}}"...)
}

var states = map[criv1.ContainerState]string{
	criv1.ContainerState_CONTAINER_CREATED: "created", criv1.ContainerState_CONTAINER_RUNNING: "running",
	criv1.ContainerState_CONTAINER_EXITED: "exited", criv1.ContainerState_CONTAINER_UNKNOWN: "dead",
}

// worded is the state as Docker words it; since when is not in a list of CRI.
var worded = map[criv1.ContainerState]string{
	criv1.ContainerState_CONTAINER_CREATED: "Created", criv1.ContainerState_CONTAINER_RUNNING: "Up",
	criv1.ContainerState_CONTAINER_EXITED: "Exited", criv1.ContainerState_CONTAINER_UNKNOWN: "Dead",
}

// State returns the facts that callers decide on.
func (e *Engine) State(ctx context.Context, id string) (runtime.ContainerStatus, error) {
	c, err := e.find(ctx, id)
	if err != nil {
		return runtime.ContainerStatus{}, err
	}
	resp, v, err := e.status(ctx, c.GetId())
	if err != nil {
		return runtime.ContainerStatus{}, err
	}
	st := resp.GetStatus()
	out := runtime.ContainerStatus{
		ID: st.GetId(), Name: namesOf(c)[0], Image: st.GetImage().GetImage(), Running: st.GetState() == criv1.ContainerState_CONTAINER_RUNNING,
		Status: states[st.GetState()], ExitCode: int(st.GetExitCode()), StartedAt: moment(st.GetStartedAt()), FinishedAt: moment(st.GetFinishedAt()),
		TTY: v.Config.Tty || v.RuntimeSpec.Process.Terminal, OpenStdin: v.Config.Stdin, Labels: labelsOf(c),
		LogPath: st.GetLogPath(), LogDriver: "cri",
	}
	if out.Running {
		out.Pid = v.Pid
	}
	if sb, err := e.rt.PodSandboxStatus(ctx, &criv1.PodSandboxStatusRequest{PodSandboxId: c.GetPodSandboxId()}); err == nil {
		out.IP = sb.GetStatus().GetNetwork().GetIp()
	}
	return out, nil
}

func moment(nanos int64) time.Time {
	if nanos == 0 {
		return time.Time{}
	}
	return time.Unix(0, nanos)
}

// List returns containers, not sandboxes. The command is known of containers that were made through an Engine.
func (e *Engine) List(ctx context.Context, opts runtime.ListOptions) ([]runtime.ContainerSummary, error) {
	filter := &criv1.ContainerFilter{}
	if opts.Running {
		filter.State = &criv1.ContainerStateValue{State: criv1.ContainerState_CONTAINER_RUNNING}
	}
	resp, err := e.rt.ListContainers(ctx, &criv1.ListContainersRequest{Filter: filter})
	if err != nil {
		return nil, e.fail(ctx, "listing containers", err)
	}
	var out []runtime.ContainerSummary
	for _, c := range resp.GetContainers() {
		if !matches(c, opts) {
			continue
		}
		s := runtime.ContainerSummary{
			ID: c.GetId(), Names: namesOf(c), Image: c.GetImage().GetUserSpecifiedImage(), ImageID: c.GetImageRef(), Created: moment(c.GetCreatedAt()),
			State: states[c.GetState()], Status: worded[c.GetState()], Labels: labelsOf(c),
			Command: c.GetAnnotations()[annotationCommand],
		}
		if s.Image == "" {
			s.Image = c.GetImage().GetImage()
		}
		if opts.Raw {
			if s.Raw, err = protojson.Marshal(c); err != nil {
				return nil, err
			}
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b runtime.ContainerSummary) int { return b.Created.Compare(a.Created) })
	return out, nil
}

func matches(c *criv1.Container, opts runtime.ListOptions) bool {
	for k, want := range opts.Labels {
		if got, ok := c.GetLabels()[k]; !ok || want != "" && got != want {
			return false
		}
	}
	return opts.Name == "" || slices.Contains(namesOf(c), strings.TrimPrefix(opts.Name, "/"))
}
