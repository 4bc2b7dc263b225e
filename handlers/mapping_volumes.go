package handlers

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/droverhq/drover/runtime"
)

const defaultDockerRoot = "/var/lib/docker"

// A dataVolume is "destination" or "source:destination[:mode]".
type dataVolume struct{ source, dest, mode string }

func parseDataVolume(i int, s string) (dataVolume, error) {
	parts := strings.SplitN(s, ":", 3)
	v := dataVolume{dest: parts[0], mode: "rw"}
	if len(parts) > 1 {
		v.source, v.dest = parts[0], parts[1]
	}
	if len(parts) > 2 && parts[2] != "" {
		v.mode = parts[2]
	}
	if v.dest == "" || len(parts) > 1 && v.source == "" {
		return v, invalid("instance.data.fields.dataVolumes"+index(i), "expected destination or source:destination[:mode]")
	}
	return v, nil
}

// mapVolumes prepares the volumes that drivers look after, and mounts all.
func (h *handlers) mapVolumes(ctx context.Context, spec *runtime.ContainerSpec, in *instance) error {
	mounted, err := h.prepareVolumes(ctx, in)
	if err != nil {
		return err
	}
	for i, s := range in.Data.Fields.DataVolumes {
		v, err := parseDataVolume(i, s)
		if err != nil {
			return err
		}
		if spec.Volumes == nil {
			spec.Volumes = make(map[string]struct{})
		}
		spec.Volumes[v.dest] = struct{}{}
		point, flex := mounted[v.source]
		switch {
		case v.source == "":
		case flex:
			spec.Binds = append(spec.Binds, point+":"+v.dest+":"+v.mode)
		default:
			spec.Binds = append(spec.Binds, h.binds(ctx, v)...)
		}
	}
	for i := range in.VolumesFrom {
		st, err := h.find(ctx, &in.VolumesFrom[i])
		if errors.Is(err, runtime.ErrNotFound) {
			h.log.WithField("instance", in.UUID).WithField("volumesFrom", in.VolumesFrom[i].UUID).
				Warn("a container whose volumes are wanted is not on this host")
			continue
		}
		if err != nil {
			return err
		}
		spec.VolumesFrom = append(spec.VolumesFrom, st.ID)
	}
	return nil
}

// binds sends the engine's usual root directory to where the engine really lives.
func (h *handlers) binds(ctx context.Context, v dataVolume) []string {
	if path.Clean(v.source) == defaultDockerRoot && path.Clean(v.dest) == defaultDockerRoot {
		if root := h.dockerRoot(ctx); root != "" && path.Clean(root) != defaultDockerRoot {
			return []string{root + ":" + defaultDockerRoot + ":" + v.mode, root + ":" + root + ":" + v.mode}
		}
	}
	return []string{v.source + ":" + v.dest + ":" + v.mode}
}

// prepareVolumes makes the instance's volumes, has Rancher's drivers attach them, and returns where the flex ones among
// them are mounted, by name.
func (h *handlers) prepareVolumes(ctx context.Context, in *instance) (map[string]string, error) {
	mounted := make(map[string]string)
	for i := range in.DataVolumeMounts {
		v := &in.DataVolumeMounts[i]
		if err := h.makeVolume(ctx, v); err != nil {
			return nil, err
		}
		driver := v.Data.Fields.Driver
		if !pluginDriver(driver) {
			continue
		}
		flex, err := h.plugins.flex(ctx, v)
		if err != nil {
			return nil, err
		}
		if _, err := h.plugins.call(ctx, driver, "Attach", v); err != nil {
			return nil, err
		}
		if !flex {
			continue
		}
		a, err := h.plugins.call(ctx, driver, "Mount", v)
		if err != nil {
			return nil, err
		}
		if a.Mountpoint == "" {
			return nil, fmt.Errorf("volume driver %s: Mount of volume %s named no mount point", driver, v.Name)
		}
		mounted[v.Name] = a.Mountpoint
	}
	return mounted, nil
}
