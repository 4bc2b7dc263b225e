package registry

import (
	"context"
	"fmt"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/droverhq/drover/runtime"
)

// PushTar sends an image out of a file that an engine saved, under the name that it has there, to the registry of that
// name, and returns the manifest's digest and size. Layers that the registry has are not sent. The file is read more
// than once. progress is as in Copy.
func (c *Client) PushTar(ctx context.Context, file, ref string, progress func(done, total int64)) (digest string, size int64, err error) {
	r, err := c.reference(ref)
	if err != nil {
		return "", 0, err
	}
	op := "pushing " + ref
	tag, ok := r.(name.Tag)
	if !ok {
		return "", 0, &runtime.Error{Op: op, Kind: runtime.ErrInvalid, Message: "a push is of a tag, not of a digest"}
	}
	img, err := tarball.ImageFromPath(file, &tag)
	if err != nil {
		return "", 0, &runtime.Error{Op: op, Message: fmt.Sprintf("the saved image cannot be read: %v", err), Cause: err}
	}
	opts := c.options(ctx, tag.RegistryStr())
	err = watched(progress, opts, func(opts []remote.Option) error { return remote.Write(tag, img, opts...) })
	if err != nil {
		return "", 0, fail(ctx, op, err)
	}
	sum, err := img.Digest()
	if err != nil {
		return "", 0, fail(ctx, op, err)
	}
	size, err = img.Size()
	return sum.String(), size, fail(ctx, op, err)
}
