package pods

import (
	"cmp"
	"os"
	"slices"
	"strings"

	"github.com/droverhq/drover/runtime"
)

// Labels of containers and sandboxes.
const (
	labelContainer = "io.kubernetes.container.name"
	labelPod       = "io.kubernetes.pod.name"
	labelNamespace = "io.kubernetes.pod.namespace"
	labelUID       = "io.kubernetes.pod.uid"
)

const sourceLabels = "labels"

type podKey struct{ namespace, name, uid string }

// built is what a pod was made of. It is made anew when one of these is another one.
type built struct {
	members []*entry
	infos   []*PodInfo
	sources []string
	facts   []*facts
	pod     *runtime.Pod // nil: it is not shown
}

func (b *built) same(o *built) bool {
	return slices.Equal(b.members, o.members) && slices.Equal(b.infos, o.infos) && slices.Equal(b.sources, o.sources) && slices.Equal(b.facts, o.facts)
}

// newEntry keeps what an engine told, with the paths as this process sees them.
func (s *Store) newEntry(engine string, d *runtime.EngineDetailContainer) *entry {
	e := &entry{detail: d, engine: engine, running: d.State.IsRunning() || d.State.Status == "paused"}
	if d.MergedDir != "" && d.Runtime == runtime.Runc && !d.IsSandbox {
		if _, err := os.Stat(s.cfg.HostFS + d.MergedDir); err == nil {
			e.merged = s.cfg.HostFS + d.MergedDir
		}
	}
	return e
}

// build makes a state of what the engines and infos tell. changed is false if it would be the present one.
func (s *Store) build(infos []sourceInfos, found map[string]*facts) (state *snapshot, changed bool) {
	groups := s.groups(infos, found)
	var shown []*runtime.Pod
	now := make(map[podKey]*built, len(groups))
	for key, g := range groups {
		was := s.pods[key]
		if was != nil && was.same(g) {
			g = was
		} else {
			g.pod = s.pod(key, g)
			changed = changed || g.pod != nil || was != nil && was.pod != nil
		}
		now[key] = g
		if g.pod != nil {
			shown = append(shown, g.pod)
		}
	}
	for key, was := range s.pods {
		changed = changed || was.pod != nil && now[key] == nil
	}
	s.pods = now
	if !changed {
		return nil, false
	}
	return newSnapshot(shown), true
}

// groups sorts what is known by pod.
func (s *Store) groups(infos []sourceInfos, found map[string]*facts) map[podKey]*built {
	groups := make(map[podKey]*built, len(s.pods))
	byName := map[[2]string][]podKey{}
	group := func(key podKey) *built {
		g := groups[key]
		if g == nil {
			g = &built{}
			groups[key] = g
			byName[[2]string{key.namespace, key.name}] = append(byName[[2]string{key.namespace, key.name}], key)
		}
		return g
	}
	for _, st := range s.engines {
		for _, e := range st.entries {
			l := e.detail.Labels
			g := group(podKey{l[labelNamespace], l[labelPod], l[labelUID]})
			g.members = append(g.members, e)
		}
	}
	for _, src := range infos {
		for _, p := range src.pods {
			if p.UID != "" {
				g := group(podKey{p.Namespace, p.Name, p.UID})
				g.infos, g.sources = append(g.infos, p), append(g.sources, src.name)
			}
		}
	}
	for _, src := range infos { // those that know no uid come last: theirs are all pods of the name
		for _, p := range src.pods {
			if p.UID != "" {
				continue
			}
			keys := byName[[2]string{p.Namespace, p.Name}]
			if len(keys) == 0 {
				group(podKey{p.Namespace, p.Name, ""})
				keys = byName[[2]string{p.Namespace, p.Name}]
			}
			for _, key := range keys {
				g := groups[key]
				g.infos, g.sources = append(g.infos, p), append(g.sources, src.name)
			}
		}
	}
	for _, g := range groups {
		slices.SortFunc(g.members, func(a, b *entry) int {
			return cmp.Or(a.detail.Created.Compare(b.detail.Created), cmp.Compare(a.detail.ID, b.detail.ID))
		})
		g.facts = make([]*facts, len(g.members))
		for i, e := range g.members {
			if f := found[e.detail.ID]; f != nil && f.pid == e.detail.State.Pid {
				g.facts[i] = f
			}
		}
	}
	return groups
}

// pod makes one pod, or nil if it has ended.
func (s *Store) pod(key podKey, g *built) *runtime.Pod {
	runs := slices.ContainsFunc(g.members, func(e *entry) bool { return e.running })
	if len(g.infos) == 0 && !runs {
		return nil
	}
	p := &runtime.Pod{
		Namespace: key.namespace, Name: key.name, UID: key.uid, NodeName: s.cfg.Self.NodeName, HostIPAddr: s.cfg.Self.NodeIP,
	}
	if len(g.members) > 0 {
		p.Sources = append(p.Sources, sourceLabels)
	}
	p.Sources = append(p.Sources, g.sources...)
	var spec map[string]ContainerInfo
	for _, info := range slices.Backward(g.infos) { // the first source has the last word
		info.fill(p)
		if info.Containers != nil {
			spec = info.Containers
		}
	}
	if p.Phase == "Succeeded" || p.Phase == "Failed" {
		return nil
	}
	if p.Phase == "" {
		p.Phase = "Unknown"
		if runs {
			p.Phase = "Running"
		}
	}
	sandbox := pickSandbox(g.members)
	if p.Created.IsZero() && len(g.members) > 0 {
		p.Created = g.members[0].detail.Created
	}
	if p.Hostname == "" && sandbox != nil {
		p.Hostname = sandbox.detail.Hostname
	}
	if p.Hostname == "" {
		p.Hostname = p.Name
	}
	if p.Labels == nil && sandbox != nil {
		p.Labels = ownLabels(sandbox.detail.Labels)
	}
	s.containers(p, g, sandbox, spec)
	return p
}

// pickSandbox returns the sandbox of a pod: the youngest that runs, else the youngest.
func pickSandbox(members []*entry) *entry {
	var found *entry
	for _, e := range members { // oldest first
		if e.detail.IsSandbox && (found == nil || e.running || !found.running) {
			found = e
		}
	}
	return found
}

func ownLabels(labels map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range labels {
		if !strings.HasPrefix(k, "io.kubernetes.") && !strings.HasPrefix(k, "annotation.io.kubernetes.") {
			out[k] = v
		}
	}
	return out
}

// containers fills the containers of a pod in.
func (s *Store) containers(p *runtime.Pod, g *built, sandbox *entry, spec map[string]ContainerInfo) {
	newest := map[string]*runtime.Container{}
	for i, e := range g.members {
		d := e.detail
		switch {
		case d.IsSandbox && e != sandbox:
			continue
		case !d.IsSandbox && sandbox != nil && sandbox.running && d.SandboxID != "" && d.SandboxID != sandbox.detail.ID:
			continue // of a sandbox that is gone
		}
		c := s.container(p, e, g.facts[i])
		if sandbox != nil && !d.IsSandbox && sandbox.detail.NetworkMode != "" { // it joins the sandbox's
			c.NetworkMode = sandbox.detail.NetworkMode
		}
		p.All = append(p.All, c)
		if d.IsSandbox {
			p.Sandbox = c
			continue
		}
		if old := newest[c.K8sContainerName]; old == nil || c.IsRunning() || !old.IsRunning() {
			newest[c.K8sContainerName] = c
		}
	}
	ordinary := 0
	for name := range newest {
		if !spec[name].Init && !spec[name].Ephemeral {
			ordinary++
		}
	}
	for _, c := range p.All {
		if c.IsSandbox() {
			continue
		}
		info := spec[c.K8sContainerName]
		c.Init, c.Ephemeral = info.Init, info.Ephemeral
		c.RestartCount = max(c.RestartCount, info.RestartCount)
		c.Role = runtime.ContainerRoleBiz
		if info.Init || info.Ephemeral || info.Sidecar || ordinary > 1 && s.isSidecar(c.K8sContainerName) {
			c.Role = runtime.ContainerRoleSidecar
		}
		switch {
		case info.Init || info.Ephemeral || newest[c.K8sContainerName] != c:
		case c.IsSidecar():
			p.Sidecar = append(p.Sidecar, c)
		default:
			p.Biz = append(p.Biz, c)
		}
	}
}

func (s *Store) isSidecar(name string) bool {
	return slices.ContainsFunc(s.cfg.Sidecars, func(part string) bool { return part != "" && strings.Contains(name, part) })
}

// container makes one container of a pod. Its role is filled in later, but for a sandbox.
func (s *Store) container(p *runtime.Pod, e *entry, f *facts) *runtime.Container {
	d := e.detail
	c := &runtime.Container{
		Id: d.ID, ContainerName: d.Name, Runtime: d.Runtime, Engine: e.engine, K8sContainerName: d.Labels[labelContainer],
		Namespace: p.Namespace, PodName: p.Name, PodUID: p.UID, SandboxID: d.SandboxID, Image: d.Image, Labels: d.Labels, Env: environment(d.Env),
		MergedDir: e.merged, HostFS: s.cfg.HostFS, NetworkMode: d.NetworkMode, PidMode: d.PidMode, Hostname: d.Hostname, State: d.State,
		RestartCount: d.RestartCount, Created: d.Created, ZombieCount: -1, Hacked: runtime.HackSkipped, Attributes: map[string]any{}, Pod: p,
	}
	if c.Hostname == "" {
		c.Hostname = p.Hostname
	}
	if d.LogPath != "" {
		c.LogPath = s.cfg.HostFS + d.LogPath
	}
	if d.IsSandbox {
		c.Role, c.Hacked = runtime.ContainerRoleSandbox, runtime.HackInit
		if c.K8sContainerName == "" {
			c.K8sContainerName = "POD"
		}
		return c
	}
	for _, m := range d.Mounts {
		c.Mounts = append(c.Mounts, &runtime.MountPoint{Source: s.cfg.HostFS + m.Source, Destination: m.Destination, RW: m.RW})
	}
	if f != nil {
		f.fill(c)
	}
	return c
}

func environment(list []string) map[string]string {
	out := make(map[string]string, len(list))
	for _, kv := range list {
		k, v, _ := strings.Cut(kv, "=")
		out[k] = v
	}
	return out
}
