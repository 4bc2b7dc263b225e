package fake

import (
	"context"
	"slices"
	"strings"

	"github.com/droverhq/drover/runtime"
)

// CreateVolume makes a volume; one that exists already with the same driver is returned as it is.
func (e *Engine) CreateVolume(ctx context.Context, spec runtime.VolumeSpec) (runtime.Volume, error) {
	op := "create volume " + spec.Name
	if err := e.enter(ctx, "CreateVolume", op); err != nil {
		return runtime.Volume{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if spec.Name == "" {
		spec.Name = newID()
	}
	if !validName(spec.Name) {
		return runtime.Volume{}, &runtime.Error{Op: op, Kind: runtime.ErrInvalid, Message: "invalid volume name"}
	}
	if spec.Driver == "" {
		spec.Driver = "local"
	}
	if v := e.volumes[spec.Name]; v != nil {
		if v.Driver != spec.Driver {
			return runtime.Volume{}, &runtime.Error{Op: op, Kind: runtime.ErrConflict, Message: "a volume of that name has another driver"}
		}
		return *v, nil
	}
	v := runtime.Volume{Name: spec.Name, Driver: spec.Driver, Mountpoint: "/var/lib/fake/volumes/" + spec.Name + "/_data", Labels: spec.Labels}
	e.volumes[v.Name] = &v
	return v, nil
}

// InspectVolume returns runtime.ErrNotFound for an unknown name.
func (e *Engine) InspectVolume(ctx context.Context, name string) (runtime.Volume, error) {
	op := "inspect volume " + name
	if err := e.enter(ctx, "InspectVolume", op); err != nil {
		return runtime.Volume{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	v := e.volumes[name]
	if v == nil {
		return runtime.Volume{}, &runtime.Error{Op: op, Kind: runtime.ErrNotFound, Message: "no such volume"}
	}
	return *v, nil
}

// RemoveVolume deletes a volume; runtime.ErrConflict if a container uses it. With force an unknown one is no error.
func (e *Engine) RemoveVolume(ctx context.Context, name string, force bool) error {
	op := "remove volume " + name
	if err := e.enter(ctx, "RemoveVolume", op); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.volumes[name] == nil {
		if force {
			return nil
		}
		return &runtime.Error{Op: op, Kind: runtime.ErrNotFound, Message: "no such volume"}
	}
	for _, c := range e.containers {
		if c.uses(name) {
			return &runtime.Error{Op: op, Kind: runtime.ErrConflict, Message: "volume is in use - [" + c.id + "]"}
		}
	}
	delete(e.volumes, name)
	return nil
}

// uses reports whether a container has the volume.
func (c *container) uses(volume string) bool {
	return slices.Contains(c.anon, volume) ||
		slices.ContainsFunc(c.spec.Binds, func(b string) bool { return strings.HasPrefix(b, volume+":") })
}

// ListVolumes returns all volumes.
func (e *Engine) ListVolumes(ctx context.Context) ([]runtime.Volume, error) {
	if err := e.enter(ctx, "ListVolumes", "list volumes"); err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	list := make([]runtime.Volume, 0, len(e.volumes))
	for _, v := range e.volumes {
		list = append(list, *v)
	}
	slices.SortFunc(list, func(a, b runtime.Volume) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}
