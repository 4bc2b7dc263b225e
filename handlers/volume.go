package handlers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/droverhq/drover/events"
	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/runtime"
)

const (
	// removeTries is how often a volume's or root container's removal is tried, removeGap the time between.
	removeTries = 3
	removeGap   = time.Second
	// moved is the mount point that Rancher's plugins report for a volume that now lives on another host.
	moved = "moved"

	volumeDone = `{"volumeStoragePoolMap":{"volume":{"format":"docker"}}}`
)

// pluginDriver reports whether a driver is one of those that Rancher's own plugins serve.
func pluginDriver(driver string) bool {
	switch driver {
	case "rancher-ebs", "rancher-nfs", "rancher-efs", "rancher-secrets", "secrets-bridge-v2":
		return true
	}
	return false
}

// managed reports whether a driver looks after the volume.
func (v *volume) managed() bool {
	driver := v.Data.Fields.Driver
	return driver != "" && (pluginDriver(driver) || v.Name != "")
}

// root reports whether the volume is a container's root file system. Only an explicit 0 says so: a number that is
// missing must never cost a container.
func (v *volume) root() bool { return v.DeviceNumber != nil && *v.DeviceNumber == 0 }

func decodeVolume(ev *wire.Event) (*volume, error) {
	var req volumeRequest
	if err := decodeEvent(ev, &req); err != nil {
		return nil, err
	}
	if req.Map.Volume == nil {
		return nil, invalid("volume", "missing")
	}
	return req.Map.Volume, nil
}

// volumes returns the engine's volumes.
func (h *handlers) volumes() (runtime.Volumes, error) {
	v, ok := h.engine.(runtime.Volumes)
	if !ok {
		return nil, fmt.Errorf("volumes: %w", runtime.ErrUnsupported)
	}
	return v, nil
}

// volumeActivate makes a volume if its driver has none of the name yet.
func (h *handlers) volumeActivate(ctx context.Context, ev *wire.Event, _ events.Progress) (any, error) {
	v, err := decodeVolume(ev)
	if err == nil {
		err = h.makeVolume(ctx, v)
	}
	if err != nil {
		return nil, err
	}
	return json.RawMessage(volumeDone), nil
}

func (h *handlers) makeVolume(ctx context.Context, v *volume) error {
	driver := v.Data.Fields.Driver
	if !v.managed() {
		return nil
	}
	flex, err := h.plugins.flex(ctx, v)
	if err != nil {
		return err
	}
	if flex {
		_, err := h.plugins.call(ctx, driver, "Create", v)
		return err
	}
	engine, err := h.volumes()
	if err != nil {
		return err
	}
	known, err := engine.InspectVolume(ctx, v.Name)
	switch {
	case err == nil && known.Mountpoint != moved:
		return nil
	case err != nil && !errors.Is(err, runtime.ErrNotFound):
		return fmt.Errorf("inspect volume %s: %w", v.Name, err)
	}
	spec := runtime.VolumeSpec{Name: v.Name, Driver: driver, Options: v.Data.Fields.Options}
	if _, err := engine.CreateVolume(ctx, spec); err != nil {
		return fmt.Errorf("create volume %s: %w", v.Name, err)
	}
	if _, err := engine.InspectVolume(ctx, v.Name); err != nil {
		return fmt.Errorf("volume %s was made but is not there: %w", v.Name, err)
	}
	return nil
}

// volumeRemove deletes a volume, or the container whose root file system it stands for.
func (h *handlers) volumeRemove(ctx context.Context, ev *wire.Event, _ events.Progress) (any, error) {
	v, err := decodeVolume(ev)
	if err != nil {
		return nil, err
	}
	switch {
	case v.root():
		err = h.removeRoot(ctx, v)
	case v.managed():
		err = h.removeManaged(ctx, v)
	}
	if err != nil {
		return nil, err
	}
	return json.RawMessage(volumeDone), nil
}

func (h *handlers) removeManaged(ctx context.Context, v *volume) error {
	flex, err := h.plugins.flex(ctx, v)
	if err != nil {
		return err
	}
	engine, err := h.volumes()
	if err != nil {
		return err
	}
	_, err = engine.InspectVolume(ctx, v.Name)
	switch {
	case errors.Is(err, runtime.ErrNotFound) && flex:
		_, err := h.plugins.call(ctx, v.Data.Fields.Driver, "Remove", v)
		return err
	case errors.Is(err, runtime.ErrNotFound):
		return nil
	case err != nil:
		return fmt.Errorf("inspect volume %s: %w", v.Name, err)
	}
	return h.removeVolume(ctx, engine, v.Name)
}

// removeVolume tries more than once: a driver may still be letting go of the volume. A driver that asks to be asked
// again later is told to the server, who does.
func (h *handlers) removeVolume(ctx context.Context, engine runtime.Volumes, name string) error {
	err := try(ctx, func() (bool, error) {
		err := engine.RemoveVolume(ctx, name, false)
		if errors.Is(err, runtime.ErrNotFound) {
			err = nil
		}
		return err != nil && !strings.Contains(err.Error(), "Should retry"), err
	})
	if err != nil {
		return fmt.Errorf("remove volume %s: %w", name, err)
	}
	return nil
}

// removeRoot removes the container of the volume's instance, and the volume that the uri names if it is one of the
// engine's. No other path is touched: an event may name any.
func (h *handlers) removeRoot(ctx context.Context, v *volume) error {
	if in := v.Instance; in != nil && (in.UUID != "" || in.ExternalID != "") {
		err := try(ctx, func() (bool, error) {
			st, err := h.find(ctx, in)
			switch {
			case errors.Is(err, runtime.ErrNotFound):
				return false, nil
			case err != nil:
				return true, err
			case h.self(st):
				h.log.WithField("container", st.Name).Warn("the agent does not remove its own container")
				return false, nil
			}
			return true, h.destroy(ctx, st)
		})
		if err != nil {
			return err
		}
	}
	name := h.ownVolume(ctx, v)
	if name == "" {
		return nil
	}
	engine, err := h.volumes()
	if err != nil {
		return err
	}
	if _, err := engine.InspectVolume(ctx, name); errors.Is(err, runtime.ErrNotFound) {
		return nil
	}
	return h.removeVolume(ctx, engine, name)
}

// ownVolume returns the name of the engine's volume at the volume's uri, "" if there is none.
func (h *handlers) ownVolume(ctx context.Context, v *volume) string {
	at := path.Clean(strings.TrimPrefix(v.URI, "file://"))
	if v.Data.Fields.IsHostPath || !path.IsAbs(at) {
		return ""
	}
	root := h.dockerRoot(ctx)
	if root == "" {
		return ""
	}
	rest, ok := strings.CutPrefix(at, path.Join(root, "volumes")+"/")
	if !ok {
		return ""
	}
	name, ok := strings.CutSuffix(rest, "/_data")
	if !ok || strings.Contains(name, "/") {
		return ""
	}
	return name
}

// try calls f up to removeTries times while it fails and says that it may be tried again.
func try(ctx context.Context, f func() (again bool, err error)) error {
	for n := 1; ; n++ {
		again, err := f()
		if err == nil || !again || n == removeTries {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(removeGap):
		}
	}
}
