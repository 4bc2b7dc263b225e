package hostproxy

import (
	"errors"
	"strings"
)

const separator = "||"

// Types of frames.
const (
	typeConnect = "0" // from the proxy; the body is the viewer's request URI
	typeBody    = "1"
	typeClose   = "2"
)

var errFrame = errors.New("a frame is key||type||body")

type frame struct {
	key, kind, body string
}

// parseFrame splits at the first two separators; the body may hold more of them.
func parseFrame(text string) (frame, error) {
	key, rest, ok := strings.Cut(text, separator)
	if !ok || key == "" {
		return frame{}, errFrame
	}
	kind, body, ok := strings.Cut(rest, separator)
	if !ok {
		return frame{}, errFrame
	}
	return frame{key, kind, body}, nil
}

func (f frame) String() string { return f.key + separator + f.kind + separator + f.body }
