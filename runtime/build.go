package runtime

import (
	"context"
	"io"
	"time"
)

// The builders of a [BuildRequest].
const (
	BuilderAuto     = ""         // BuildKit where the engine has it and it can do what is asked, else the classic one
	BuilderBuildKit = "buildkit" // steps in parallel; keeps no image of the steps before a failure
	BuilderClassic  = "classic"  // an image after each step
)

// An ImageBuilder builds images from a Dockerfile; an optional capability.
type ImageBuilder interface {
	// BuildImage builds from a tar stream, or, where context is nil, from req.Remote, which the engine fetches itself.
	// step is called from one goroutine with everything that the builder says, in its order; it may block, which slows
	// the build. A failed step comes as a BuildStep of state "failed" before the error. The stream is treated as in
	// [ImageManager].ImportImage. The end of ctx ends the build in the engine too.
	BuildImage(ctx context.Context, req BuildRequest, context io.Reader, step func(BuildStep)) (BuildResult, error)
}

// A BuildRequest says what is built.
type BuildRequest struct {
	Tags       []string          `json:"tags"`       // names of the image; none leaves it without one
	Remote     string            `json:"remote"`     // a git or tar URL
	Dockerfile string            `json:"dockerfile"` // its path in the context; "" is "Dockerfile"
	Args       map[string]string `json:"args"`
	Labels     map[string]string `json:"labels"`
	Target     string            `json:"target"` // stage to end with; "" is the last
	NoCache    bool              `json:"noCache"`
	Pull       bool              `json:"pull"` // look for newer base images
	Platform   string            `json:"platform"`
	Builder    string            `json:"builder"`
	// Auths are the credentials of registries that base images come from, by host. BuildKit cannot be given any.
	Auths      map[string]RegistryAuth `json:"-"`
	Inactivity time.Duration           `json:"-"` // longest wait without a word of the builder; 0 is an hour
}

// A BuildStep is one message of a build: that a step began or ended, a line of its output, or how far a transfer is.
type BuildStep struct {
	Step    string   `json:"step,omitempty"`    // "2/5", or "build 2/5" in a stage of that name
	ID      string   `json:"id,omitempty"`      // of the step: BuildKit's digest of it
	Name    string   `json:"name,omitempty"`    // the instruction
	State   string   `json:"state,omitempty"`   // a Build state, "" for output and transfers
	Layer   string   `json:"layer,omitempty"`   // what is transferred; with a state, the image after the step
	Stream  int      `json:"stream,omitempty"`  // of Text: 1 is the output, 2 the errors
	Text    string   `json:"text,omitempty"`    // output, as it comes: with line feeds, perhaps without the last
	Current int64    `json:"current,omitempty"` // bytes
	Total   int64    `json:"total,omitempty"`   // bytes, 0 if unknown
	Image   string   `json:"image,omitempty"`   // of a failed step: the image of the steps before it, "" if there is none
	Tail    []string `json:"tail,omitempty"`    // of a failed step: the last lines of its output
	Millis  int64    `json:"millis,omitempty"`  // of a step that is done: how long it took, where the builder tells
}

// The states of a BuildStep.
const (
	BuildStarted = "started"
	BuildCached  = "cached"
	BuildDone    = "done"
	BuildFailed  = "failed"
)

// A BuildResult is what a build made.
type BuildResult struct {
	ID      string   `json:"id"`
	Tags    []string `json:"tags"`
	Builder string   `json:"builder"` // which one it was
}
