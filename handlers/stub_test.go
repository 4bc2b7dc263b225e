package handlers_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/droverhq/drover/runtime"
)

// stub is an engine whose JSON is the same in each run, for golden frames. It notes what was asked of it.
type stub struct {
	mu         sync.Mutex
	calls      []string
	containers map[string]*stubContainer
	images     map[string]runtime.ImageConfig
	volumes    map[string]runtime.Volume
	info       runtime.Info
	spec       *runtime.ContainerSpec // of the last Create

	// fail returns an error for a call as it is noted, nil for none.
	fail func(call string) error
	// steps are the progress of each pull.
	steps []runtime.PullProgress
	// onPull runs in each pull, if it is set.
	onPull func(ctx context.Context, req runtime.PullRequest) error
}

type stubContainer struct {
	status runtime.ContainerStatus
	ports  []runtime.Port
}

const (
	stubID   = "1111111111111111111111111111111111111111111111111111111111111111"
	nativeID = "2222222222222222222222222222222222222222222222222222222222222222"
	testUUID = "c861f990-4472-4fa1-960f-65171b544c28"
)

// quote writes a string as JSON.
func quote(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func newStub() *stub {
	return &stub{
		containers: map[string]*stubContainer{},
		images: map[string]runtime.ImageConfig{
			"nginx:latest": {
				ID: "sha256:aaaa", RepoTags: []string{"nginx:latest"}, Entrypoint: []string{"/entry"}, Cmd: []string{"nginx", "-g"},
				ExposedPorts: []runtime.Port{{PrivatePort: 80, Protocol: "tcp"}},
			},
		},
		volumes: map[string]runtime.Volume{},
		info:    runtime.Info{Version: "20.10.24", RootDir: "/var/lib/docker"},
	}
}

// add puts a container on the host.
func (s *stub) add(st runtime.ContainerStatus, ports ...runtime.Port) *stubContainer {
	c := &stubContainer{status: st, ports: ports}
	if c.status.Running {
		c.status.Status, c.status.Pid = "running", 4711
	}
	s.containers[st.ID] = c
	return c
}

func (s *stub) note(format string, args ...any) error {
	call := fmt.Sprintf(format, args...)
	s.calls = append(s.calls, call)
	if s.fail != nil {
		return s.fail(call)
	}
	return nil
}

// changes returns the calls that change something.
func (s *stub) changes() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.calls), func(c string) bool {
		verb, _, _ := strings.Cut(c, " ")
		return slices.Contains([]string{"state", "list", "inspect", "info", "image", "inspect-image", "inspect-volume"}, verb)
	})
}

func (s *stub) lookup(id string) (*stubContainer, error) {
	if id == "" || strings.ContainsAny(id, "/ ") {
		return nil, fmt.Errorf("stub: %q: %w", id, runtime.ErrInvalid)
	}
	for _, c := range s.containers {
		if c.status.ID == id || c.status.Name == id || len(id) >= 12 && strings.HasPrefix(c.status.ID, id) {
			return c, nil
		}
	}
	return nil, fmt.Errorf("No such container: %s: %w", id, runtime.ErrNotFound)
}

func (s *stub) Create(ctx context.Context, spec *runtime.ContainerSpec) (string, []string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.note("create %s", spec.Name); err != nil {
		return "", nil, err
	}
	if _, ok := s.images[spec.Image]; !ok {
		return "", nil, fmt.Errorf("No such image: %s: %w", spec.Image, runtime.ErrNotFound)
	}
	if c, err := s.lookup(spec.Name); err == nil {
		return "", nil, fmt.Errorf("name %s is in use by %s: %w", spec.Name, c.status.ID, runtime.ErrConflict)
	}
	s.spec = spec
	st := runtime.ContainerStatus{ID: stubID, Name: spec.Name, Image: spec.Image, Status: "created", Labels: spec.Labels, IP: "172.17.0.2"}
	var ports []runtime.Port
	for _, p := range spec.PortBindings {
		if p.IP == "" {
			p.IP = "0.0.0.0"
		}
		ports = append(ports, p)
	}
	s.add(st, ports...)
	return stubID, []string{"a warning"}, nil
}

func (s *stub) Start(ctx context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.lookup(id)
	if err != nil {
		return err
	}
	if err := s.note("start %s", c.status.Name); err != nil {
		return err
	}
	c.status.Running, c.status.Status, c.status.Pid = true, "running", 4711
	c.status.StartedAt = time.Date(2026, 1, 2, 3, 4, 5, 678900000, time.UTC)
	return nil
}

func (s *stub) end(c *stubContainer) {
	c.status.Running, c.status.Status, c.status.Pid = false, "exited", 0
}

func (s *stub) Stop(ctx context.Context, id string, timeout *time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.lookup(id)
	if err != nil {
		return err
	}
	if err := s.note("stop %s %s", c.status.Name, *timeout); err != nil {
		return err
	}
	s.end(c)
	return nil
}

func (s *stub) Kill(ctx context.Context, id, signal string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.lookup(id)
	if err != nil {
		return err
	}
	if err := s.note("kill %s %s", c.status.Name, signal); err != nil {
		return err
	}
	if !c.status.Running {
		return fmt.Errorf("%s does not run: %w", id, runtime.ErrConflict)
	}
	s.end(c)
	return nil
}

func (s *stub) Remove(ctx context.Context, id string, opts runtime.RemoveOptions) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.lookup(id)
	if err != nil {
		return err
	}
	if err := s.note("remove %s force=%v volumes=%v", c.status.Name, opts.Force, opts.Volumes); err != nil {
		return err
	}
	delete(s.containers, c.status.ID)
	return nil
}

func (s *stub) Inspect(ctx context.Context, id string) (json.RawMessage, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.note("inspect %s", id); err != nil {
		return nil, err
	}
	c, err := s.lookup(id)
	if err != nil {
		return nil, err
	}
	return json.RawMessage(fmt.Sprintf(`{"Id":%s,"Name":%s,"State":{"Running":%v},"Mounts":[{"Destination":"/data"}],"Config":{"Image":%s}}`+"\n",
		quote(c.status.ID), quote("/"+c.status.Name), c.status.Running, quote(c.status.Image))), nil
}

func (s *stub) State(ctx context.Context, id string) (runtime.ContainerStatus, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.note("state %s", id); err != nil {
		return runtime.ContainerStatus{}, err
	}
	c, err := s.lookup(id)
	if err != nil {
		return runtime.ContainerStatus{}, err
	}
	return c.status, nil
}

func (s *stub) List(ctx context.Context, opts runtime.ListOptions) ([]runtime.ContainerSummary, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.note("list name=%s labels=%v", opts.Name, opts.Labels); err != nil {
		return nil, err
	}
	var rows []runtime.ContainerSummary
	for _, id := range slices.Sorted(maps.Keys(s.containers)) {
		c := s.containers[id]
		if opts.Name != "" && opts.Name != c.status.Name {
			continue
		}
		if slices.ContainsFunc(slices.Collect(maps.Keys(opts.Labels)), func(k string) bool { return opts.Labels[k] != c.status.Labels[k] }) {
			continue
		}
		row := runtime.ContainerSummary{ID: id, Names: []string{c.status.Name}, Image: c.status.Image, State: c.status.Status, Labels: c.status.Labels, Ports: c.ports}
		if opts.Raw {
			row.Raw = json.RawMessage(fmt.Sprintf(`{"Id":%s,"Names":[%s],"State":%s}`, quote(id), quote("/"+c.status.Name), quote(c.status.Status)))
		}
		rows = append(rows, row)
	}
	return rows, nil
}

func (s *stub) InspectImage(ctx context.Context, ref string) (json.RawMessage, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.note("inspect-image %s", ref); err != nil {
		return nil, err
	}
	img, ok := s.images[ref]
	if !ok {
		return nil, fmt.Errorf("No such image: %s: %w", ref, runtime.ErrNotFound)
	}
	return json.RawMessage(fmt.Sprintf(`{"Id":%s,"RepoTags":[%s]}`, quote(img.ID), quote(ref))), nil
}

func (s *stub) ImageConfig(ctx context.Context, ref string) (runtime.ImageConfig, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.note("image %s", ref); err != nil {
		return runtime.ImageConfig{}, err
	}
	img, ok := s.images[ref]
	if !ok {
		return img, fmt.Errorf("No such image: %s: %w", ref, runtime.ErrNotFound)
	}
	return img, nil
}

func (s *stub) Pull(ctx context.Context, req runtime.PullRequest, progress func(runtime.PullProgress)) error {
	s.mu.Lock()
	user := "nobody"
	if req.Auth != nil {
		user = req.Auth.Username + "@" + req.Auth.ServerAddress
	}
	err := s.note("pull %s as %s", req.Ref, user)
	steps, onPull := s.steps, s.onPull
	s.mu.Unlock()
	for _, step := range steps {
		progress(step)
	}
	if err == nil && onPull != nil {
		err = onPull(ctx, req)
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.images[req.Ref] = runtime.ImageConfig{ID: "sha256:bbbb", RepoTags: []string{req.Ref}, Cmd: []string{"/run"}}
	return nil
}

func (s *stub) TagImage(ctx context.Context, source, target string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.note("tag %s %s", source, target); err != nil {
		return err
	}
	s.images[target] = s.images[source]
	return nil
}

func (s *stub) RemoveImage(ctx context.Context, ref string, force bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.note("remove-image %s force=%v", ref, force); err != nil {
		return err
	}
	if _, ok := s.images[ref]; !ok {
		return fmt.Errorf("No such image: %s: %w", ref, runtime.ErrNotFound)
	}
	delete(s.images, ref)
	return nil
}

func (s *stub) ListImages(ctx context.Context) ([]runtime.ImageSummary, error) { return nil, nil }

func (s *stub) Ping(ctx context.Context) error { return nil }

func (s *stub) Info(ctx context.Context) (runtime.Info, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.info, s.note("info")
}

func (s *stub) BuildRemote(ctx context.Context, remote, tag string, progress func(runtime.PullProgress)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.note("build %s %s", remote, tag); err != nil {
		return err
	}
	s.images[tag] = runtime.ImageConfig{ID: "sha256:cccc"}
	return nil
}

func (s *stub) CreateVolume(ctx context.Context, spec runtime.VolumeSpec) (runtime.Volume, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.note("create-volume %s %s %v", spec.Name, spec.Driver, spec.Options); err != nil {
		return runtime.Volume{}, err
	}
	s.volumes[spec.Name] = runtime.Volume{Name: spec.Name, Driver: spec.Driver, Mountpoint: "/v/" + spec.Name}
	return s.volumes[spec.Name], nil
}

func (s *stub) InspectVolume(ctx context.Context, name string) (runtime.Volume, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.note("inspect-volume %s", name); err != nil {
		return runtime.Volume{}, err
	}
	v, ok := s.volumes[name]
	if !ok {
		return v, fmt.Errorf("no volume %s: %w", name, runtime.ErrNotFound)
	}
	return v, nil
}

func (s *stub) RemoveVolume(ctx context.Context, name string, force bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.note("remove-volume %s", name); err != nil {
		return err
	}
	delete(s.volumes, name)
	return nil
}

func (s *stub) ListVolumes(ctx context.Context) ([]runtime.Volume, error) { return nil, nil }
