package pods

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/droverhq/drover/runtime"
)

// A snapshot is one state of the map. It never changes.
type snapshot struct {
	pods       []*runtime.Pod // by namespace, name and age
	byName     map[[2]string]*runtime.Pod
	bySandbox  map[string]*runtime.Pod
	containers []*runtime.Container // by id
}

func newSnapshot(pods []*runtime.Pod) *snapshot {
	s := &snapshot{pods: pods, byName: make(map[[2]string]*runtime.Pod, len(pods)), bySandbox: make(map[string]*runtime.Pod, len(pods))}
	slices.SortFunc(pods, func(a, b *runtime.Pod) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name), a.Created.Compare(b.Created), cmp.Compare(a.UID, b.UID))
	})
	n := 0
	for _, p := range pods {
		n += len(p.All)
	}
	s.containers = make([]*runtime.Container, 0, n)
	for _, p := range pods {
		s.byName[[2]string{p.Namespace, p.Name}] = p // the last is the youngest
		for _, c := range p.All {
			s.containers = append(s.containers, c)
			if c.IsSandbox() {
				s.bySandbox[c.Id] = p
			} else if c.SandboxID != "" && s.bySandbox[c.SandboxID] == nil {
				s.bySandbox[c.SandboxID] = p
			}
		}
	}
	slices.SortFunc(s.containers, func(a, b *runtime.Container) int { return cmp.Compare(a.Id, b.Id) })
	return s
}

// GetAllPods returns all pods, sorted by namespace and name. The slice is the caller's.
func (s *Store) GetAllPods() []*runtime.Pod { return slices.Clone(s.state.Load().pods) }

// GetPod finds a pod by namespace and name; of several with the name, the youngest.
func (s *Store) GetPod(namespace, name string) (*runtime.Pod, error) {
	if p := s.state.Load().byName[[2]string{namespace, name}]; p != nil {
		return p, nil
	}
	return nil, runtime.NoPodError(namespace, name)
}

// GetPodBySandboxId finds the pod that a sandbox holds, by the sandbox's full id or an unambiguous prefix.
func (s *Store) GetPodBySandboxId(sandboxID string) (*runtime.Pod, error) { //nolint:revive // the name of the shared model
	state := s.state.Load()
	if p := state.bySandbox[sandboxID]; p != nil {
		return p, nil
	}
	if c, err := state.container(sandboxID); err == nil && c.IsSandbox() {
		return c.Pod, nil
	}
	return nil, &runtime.Error{Kind: runtime.ErrNotFound, Message: fmt.Sprintf("no pod sandboxId=[%s]", sandboxID)}
}

// GetContainerByCid finds a container by its full id or an unambiguous prefix of one; an ambiguous one is
// runtime.ErrInvalid.
func (s *Store) GetContainerByCid(cid string) (*runtime.Container, error) {
	return s.state.Load().container(cid)
}

func (s *snapshot) container(id string) (*runtime.Container, error) {
	if id == "" {
		return nil, runtime.ErrNoSuchContainer
	}
	i, exact := slices.BinarySearchFunc(s.containers, id, func(c *runtime.Container, id string) int { return cmp.Compare(c.Id, id) })
	if exact {
		return s.containers[i], nil
	}
	if i == len(s.containers) || !strings.HasPrefix(s.containers[i].Id, id) {
		return nil, runtime.ErrNoSuchContainer
	}
	if i+1 < len(s.containers) && strings.HasPrefix(s.containers[i+1].Id, id) {
		return nil, &runtime.Error{Kind: runtime.ErrInvalid, Message: fmt.Sprintf("several containers have an id that begins with %.64s", id)}
	}
	return s.containers[i], nil
}
