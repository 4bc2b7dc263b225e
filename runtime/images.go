package runtime

import (
	"context"
	"errors"
	"io"
	"time"
)

// ErrPlainHTTP says that an engine refused a registry because that one speaks no TLS and the engine was not told that
// it may be spoken to without. Errors that wrap it are of the class ErrInvalid.
var ErrPlainHTTP = errors.New("the registry speaks plain HTTP")

// An ImageManager does with images what goes beyond [Images]; an optional capability.
type ImageManager interface {
	// History returns the steps that an image was made of, newest first.
	History(ctx context.Context, ref string) ([]HistoryEntry, error)
	// Push sends an image to the registry that its reference names. progress as in [Images].Pull; a stream that ends
	// before the registry confirmed the digest is an error. A failed push may be repeated: layers that arrived stay.
	Push(ctx context.Context, req PushRequest, progress func(PullProgress)) (PushResult, error)
	// Commit makes an image of a container and returns its id. It takes as long as the container is large.
	Commit(ctx context.Context, req CommitRequest) (imageID string, err error)
	// ImportImage makes an image of a tar stream of a root file system and returns its id. progress gets the bytes read.
	// The stream is read to its end; it is not closed, and a Read of it may still be under way after an error.
	ImportImage(ctx context.Context, req ImportRequest, tar io.Reader, progress func(PullProgress)) (imageID string, err error)
	// SaveImages writes images with their names, as one tar that LoadImages takes. After an error w has a part of it.
	SaveImages(ctx context.Context, refs []string, w io.Writer) error
	// LoadImages takes what SaveImages wrote and returns the references, or ids, that came with it. tar is treated as
	// in ImportImage.
	LoadImages(ctx context.Context, tar io.Reader, progress func(PullProgress)) ([]string, error)
	// DeleteImage is [Images].RemoveImage that tells what went. Children that have no name go too.
	DeleteImage(ctx context.Context, ref string, force bool) (ImageRemoval, error)
	// PruneImages removes images that no container uses, running or not; with opts.DryRun it only tells which.
	PruneImages(ctx context.Context, opts PruneOptions) (PruneReport, error)
}

// A HistoryEntry is one step of an image.
type HistoryEntry struct {
	ID        string    `json:"id"` // "" where the step's image is not on the host
	Created   time.Time `json:"created"`
	CreatedBy string    `json:"createdBy"`
	Comment   string    `json:"comment,omitempty"`
	Tags      []string  `json:"tags,omitempty"`
	Size      int64     `json:"size"` // bytes
}

// A PushRequest names an image and how to send it.
type PushRequest struct {
	Ref        string // with the registry, as "registry.example.org:5000/shop/api:1.4"; no tag is "latest"
	Auth       *RegistryAuth
	Inactivity time.Duration // longest wait without any progress; 0 is 5 minutes
}

// A PushResult is what the registry has now.
type PushResult struct {
	Digest string `json:"digest"`
	Size   int64  `json:"size"` // bytes of the manifest
}

// A CommitRequest says which container becomes which image.
type CommitRequest struct {
	Container string
	Ref       string // name of the image; "" leaves it without one
	Author    string
	Comment   string
	Changes   []string // Dockerfile instructions: "CMD [\"/bin/app\"]", "ENV A=b"
	NoPause   bool     // do not freeze the processes meanwhile
}

// An ImportRequest says what becomes of a root file system.
type ImportRequest struct {
	Ref        string   // name of the image; "" leaves it without one
	Comment    string   // shown in the history
	Changes    []string // as in CommitRequest
	Platform   string   // "linux/arm64"; "" is the host's
	Inactivity time.Duration
}

// An ImageRemoval is what a removal did.
type ImageRemoval struct {
	Untagged []string `json:"untagged"`
	Deleted  []string `json:"deleted"`
}

// PruneOptions narrow a prune; all that are given must match.
type PruneOptions struct {
	All       bool      // images with a name too, not only dangling ones
	Until     time.Time // made before; zero: any
	Labels    []string  // "key" or "key=value"
	NotLabels []string  // likewise, and the image must not have it
	DryRun    bool
}

// A PruneReport is what went, or would go.
type PruneReport struct {
	Images   []PrunedImage `json:"images"`
	Untagged []string      `json:"untagged"`
	Deleted  []string      `json:"deleted"` // ids of images and of the nameless ones below them; none after a dry run
	// Bytes is what the engine says it freed. Of a dry run it is the least: layers that only pruned images share come
	// on top.
	Bytes int64 `json:"bytes"`
}

// A PrunedImage is an image that went, or would go.
type PrunedImage struct {
	ID       string    `json:"id"`
	RepoTags []string  `json:"repoTags"`
	Created  time.Time `json:"created"`
	Size     int64     `json:"size"`   // bytes
	Unique   int64     `json:"unique"` // bytes that no other image shares
}
