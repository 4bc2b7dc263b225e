package docker

import (
	"context"

	"github.com/docker/docker/api/types/volume"

	"github.com/droverhq/drover/runtime"
)

// CreateVolume makes a volume; one that exists already with the same driver is returned as it is.
func (e *Engine) CreateVolume(ctx context.Context, spec runtime.VolumeSpec) (runtime.Volume, error) {
	op := "create volume " + shorten(spec.Name)
	if spec.Name != "" {
		if _, err := volumeName(op, spec.Name); err != nil {
			return runtime.Volume{}, err
		}
	}
	var v volume.Volume
	err := e.change(ctx, op, func(ctx context.Context, s *session) (err error) {
		v, err = s.api.VolumeCreate(ctx, volume.CreateOptions{
			Name: spec.Name, Driver: spec.Driver, DriverOpts: spec.Options, Labels: spec.Labels,
		})
		return err
	})
	return volumeOf(v), err
}

// InspectVolume returns runtime.ErrNotFound for an unknown name.
func (e *Engine) InspectVolume(ctx context.Context, name string) (runtime.Volume, error) {
	op := "inspect volume " + shorten(name)
	if _, err := volumeName(op, name); err != nil {
		return runtime.Volume{}, err
	}
	var v volume.Volume
	err := e.read(ctx, op, func(ctx context.Context, s *session) (err error) {
		v, err = s.api.VolumeInspect(ctx, name)
		return err
	})
	return volumeOf(v), err
}

// RemoveVolume deletes a volume; runtime.ErrConflict if a container uses it.
func (e *Engine) RemoveVolume(ctx context.Context, name string, force bool) error {
	op := "remove volume " + shorten(name)
	if _, err := volumeName(op, name); err != nil {
		return err
	}
	return e.change(ctx, op, func(ctx context.Context, s *session) error {
		return s.api.VolumeRemove(ctx, name, force)
	})
}

// ListVolumes returns all volumes.
func (e *Engine) ListVolumes(ctx context.Context) ([]runtime.Volume, error) {
	var list []runtime.Volume
	err := e.read(ctx, "list volumes", func(ctx context.Context, s *session) error {
		answer, err := s.api.VolumeList(ctx, volume.ListOptions{})
		if err != nil {
			return err
		}
		list = make([]runtime.Volume, 0, len(answer.Volumes))
		for _, v := range answer.Volumes {
			list = append(list, volumeOf(*v))
		}
		return nil
	})
	return list, err
}

func volumeOf(v volume.Volume) runtime.Volume {
	return runtime.Volume{Name: v.Name, Driver: v.Driver, Mountpoint: v.Mountpoint, Labels: v.Labels}
}
