package handlers

import (
	"context"
	"errors"
	"fmt"

	"github.com/droverhq/drover/runtime"
)

// mapCNIWait lets a container of a CNI network start its process only when its network is there: a helper out of a
// volume of the network's waits and then becomes that process.
func (h *handlers) mapCNIWait(ctx context.Context, spec *runtime.ContainerSpec) error {
	if spec.Labels[labelCNIWait] != "true" {
		return nil
	}
	if len(spec.Entrypoint) == 0 {
		image, err := h.engine.ImageConfig(ctx, spec.Image)
		if errors.Is(err, runtime.ErrNotFound) {
			return fmt.Errorf("%w: %w", errNeedsImage, err)
		}
		if err != nil {
			return fmt.Errorf("image %s: %w", spec.Image, err)
		}
		spec.Entrypoint = image.Entrypoint
		if len(spec.Cmd) == 0 {
			spec.Cmd = image.Cmd
		}
	}
	spec.Entrypoint = append([]string{"/.r/r"}, spec.Entrypoint...)
	spec.Binds = append(spec.Binds, "rancher-cni:/.r:ro")
	return nil
}
