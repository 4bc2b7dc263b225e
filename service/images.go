package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/runtime/imagetar"
)

// Images says what of images goes through a host.
type Images struct {
	Roots   []string // folders of the host that build contexts may be in; none: only those that are sent
	MaxSize int64    // bytes of a stream, unpacked; 0 is 64 GiB
}

const (
	maxImageStream  = 64 << 30
	maxBuildRequest = 1 << 20
	// maxHeld bounds what a builder says while its context is still being sent.
	maxHeld = 1000
)

// A BuildRequest is the first part of a build's body.
type BuildRequest struct {
	runtime.BuildRequest
	Path        string `json:"path"` // a context on the host, under one of its allowed folders
	Credentials map[string]struct {
		Username      string `json:"username"`
		Password      string `json:"password"`
		IdentityToken string `json:"identityToken"`
	} `json:"credentials"` // by registry
}

// A BuildLine is one line of a build's answer: a step, or, as the last, what came of it.
type BuildLine struct {
	Step  *runtime.BuildStep   `json:"step,omitempty"`
	Image *runtime.BuildResult `json:"image,omitempty"`
	Error *Error               `json:"error,omitempty"`
}

// routeImages registers the streams of images.
func (s *Service) routeImages() {
	s.handle("POST /v1/images/build", VerbBuild, s.buildImage)
	s.handle("GET /v1/images/save", VerbImageRead, s.saveImages)
	s.handle("POST /v1/images/load", VerbImageWrite, s.loadImages)
	s.handle("POST /v1/images/import", VerbImageWrite, s.importImage)
}

// buildImage builds an image. The body is multipart: the part "request", a BuildRequest, and, unless that names a
// context, the part "context", a tar, packed or not. The answer is lines of JSON, each a BuildLine.
func (s *Service) buildImage(w http.ResponseWriter, r *http.Request) error {
	engine := capability[runtime.ImageBuilder](s.cfg.Engine)
	if engine == nil {
		return unsupported("builds")
	}
	if err := s.allow(r, Action{Verb: VerbBuild}); err != nil {
		return err
	}
	parts, req, err := readBuild(r)
	if err != nil {
		return err
	}
	source, err := s.buildContext(parts, req)
	if err != nil {
		return err
	}
	out := &lineWriter{w: w}
	var stream io.Reader
	body := &endReader{end: out.release}
	if source != nil {
		defer source.Close()
		body.r, stream = source, body
	} else {
		out.release()
	}
	result, err := engine.BuildImage(r.Context(), req.BuildRequest, stream, func(step runtime.BuildStep) { out.line(BuildLine{Step: &step}) })
	if source != nil {
		if _, failed := source.State(); failed != nil && err != nil && r.Context().Err() == nil {
			err = failed // the engine only saw the stream end
		}
	}
	if err != nil {
		if source != nil && !body.ended.Load() {
			stopBody(w)
		}
		if !out.flush() {
			return err
		}
		status, code := classify(err)
		out.line(BuildLine{Error: &Error{Type: "error", Status: status, Code: code, Message: err.Error()}})
		return answered{err}
	}
	out.release()
	out.line(BuildLine{Image: &result})
	return out.err
}

// readBuild reads the request of a build. parts is nil where the body holds nothing else.
func readBuild(r *http.Request) (*multipart.Reader, *BuildRequest, error) {
	media, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	var body io.Reader = r.Body
	var parts *multipart.Reader
	switch {
	case err == nil && media == "application/json":
	case err == nil && strings.HasPrefix(media, "multipart/") && params["boundary"] != "":
		parts = multipart.NewReader(r.Body, params["boundary"])
		part, err := parts.NextPart()
		if err != nil {
			return nil, nil, invalid("the body has no part request: %v", err)
		}
		if part.FormName() != "request" {
			return nil, nil, invalid("the first part of the body is %.40q, not request", part.FormName())
		}
		body = part
	default:
		return nil, nil, invalid("the body is neither multipart nor JSON")
	}
	req := &BuildRequest{}
	b, err := io.ReadAll(io.LimitReader(body, maxBuildRequest+1))
	switch {
	case err != nil:
		return nil, nil, invalid("the request cannot be read: %v", err)
	case len(b) > maxBuildRequest:
		return nil, nil, invalid("the request is larger than %d bytes", maxBuildRequest)
	}
	if err := json.Unmarshal(b, req); err != nil {
		var wrong *json.UnmarshalTypeError
		if errors.As(err, &wrong) {
			return nil, nil, invalid("field %s of the request is a %s, not a %s", strings.TrimPrefix(wrong.Field, "BuildRequest."), wrong.Value, wrong.Type)
		}
		return nil, nil, invalid("the request is no JSON")
	}
	for host, c := range req.Credentials {
		if req.Auths == nil {
			req.Auths = map[string]runtime.RegistryAuth{}
		}
		req.Auths[host] = runtime.RegistryAuth{Username: c.Username, Password: c.Password, IdentityToken: c.IdentityToken, ServerAddress: host}
	}
	return parts, req, nil
}

// buildContext returns the context as a stream, nil where the engine fetches it. The caller closes it.
func (s *Service) buildContext(parts *multipart.Reader, req *BuildRequest) (*imagetar.Bounded, error) {
	switch {
	case req.Path != "" && req.Remote != "":
		return nil, invalid("a context is either a path or a URL")
	case req.Path != "":
		source, dockerfile, err := imagetar.BuildContext(s.cfg.Images.Roots, req.Path, req.Dockerfile, s.maxImage())
		req.Dockerfile = dockerfile
		return source, err
	case req.Remote != "":
		return nil, nil
	case parts == nil:
		return nil, invalid("there is no context")
	}
	part, err := parts.NextPart()
	if err != nil {
		return nil, invalid("the body has no part context: %v", err)
	}
	if part.FormName() != "context" {
		return nil, invalid("the second part of the body is %.40q, not context", part.FormName())
	}
	return imagetar.Unpack(io.NopCloser(part), s.maxImage(), "the context") // closing a part reads it to its end
}

func (s *Service) maxImage() int64 {
	if s.cfg.Images.MaxSize > 0 {
		return s.cfg.Images.MaxSize
	}
	return maxImageStream
}

// saveImages answers with images as one tar, as "docker save" makes it.
func (s *Service) saveImages(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	if q.err != nil {
		return q.err
	}
	engine := capability[runtime.ImageManager](s.cfg.Engine)
	if engine == nil {
		return unsupported("saving images")
	}
	if err := s.allow(r, Action{Verb: VerbImageRead}); err != nil {
		return err
	}
	refs := q.Values["image"]
	if len(refs) == 0 {
		return invalid("no image is named")
	}
	for _, ref := range refs {
		// The engine would only notice in the middle of the answer.
		if images := capability[runtime.Images](s.cfg.Engine); images != nil {
			if _, err := images.ImageConfig(r.Context(), ref); err != nil {
				return err
			}
		}
	}
	w.Header().Set("Content-Type", "application/x-tar")
	w.Header().Set("Cache-Control", "no-store")
	return engine.SaveImages(r.Context(), refs, struct{ io.Writer }{w})
}

// loadImages takes such a tar, packed or not, and answers with the names that came with it.
func (s *Service) loadImages(w http.ResponseWriter, r *http.Request) error {
	return s.takeImages(w, r, func(ctx context.Context, engine runtime.ImageManager, _ *query, source io.Reader) (any, error) {
		names, err := engine.LoadImages(ctx, source, nil)
		return map[string]any{"images": names}, err
	})
}

// importImage makes an image of a root file system: a tar, packed or not.
func (s *Service) importImage(w http.ResponseWriter, r *http.Request) error {
	return s.takeImages(w, r, func(ctx context.Context, engine runtime.ImageManager, q *query, source io.Reader) (any, error) {
		ref := q.Get("image")
		if ref == "" {
			return nil, invalid("no image is named")
		}
		id, err := engine.ImportImage(ctx, runtime.ImportRequest{
			Ref: ref, Comment: q.Get("comment"), Changes: q.Values["change"], Platform: q.Get("platform"),
		}, source, nil)
		return map[string]any{"image": map[string]any{"id": id, "name": ref}}, err
	})
}

// takeImages unpacks and bounds the body for take, and answers with what that returns.
func (s *Service) takeImages(w http.ResponseWriter, r *http.Request, take func(context.Context, runtime.ImageManager, *query, io.Reader) (any, error)) error {
	q := queryOf(r)
	if q.err != nil {
		return q.err
	}
	engine := capability[runtime.ImageManager](s.cfg.Engine)
	if engine == nil {
		return unsupported("taking images")
	}
	if err := s.allow(r, Action{Verb: VerbImageWrite}); err != nil {
		return err
	}
	source, err := imagetar.Unpack(r.Body, s.maxImage(), "the stream")
	if err != nil {
		return err
	}
	defer source.Close()
	body := &endReader{r: source, end: func() {}}
	answer, err := take(r.Context(), engine, q, body)
	if err != nil {
		if !body.ended.Load() {
			stopBody(w)
		}
		if _, failed := source.State(); failed != nil && r.Context().Err() == nil {
			return failed
		}
		return err
	}
	return writeJSON(w, answer)
}

// stopBody ends a Read of the body that waits for a caller who sends nothing, so that the stream can be closed. It is
// for bodies that were not read to their end: the connection is not used again then.
func stopBody(w http.ResponseWriter) {
	w.Header().Set("Connection", "close")
	_ = http.NewResponseController(w).SetReadDeadline(time.Now()) // where that cannot be, the caller's end does it
}

// An endReader tells once when its stream has ended.
type endReader struct {
	r     io.Reader
	end   func()
	ended atomic.Bool
}

func (e *endReader) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	if err != nil && e.ended.CompareAndSwap(false, true) {
		e.end()
	}
	return n, err
}

// A lineWriter writes lines of JSON, each at once. Until the body is read it holds them back: an HTTP/1 server, and
// every proxy on the way, takes the beginning of the answer for the end of the request.
type lineWriter struct {
	mu    sync.Mutex
	w     http.ResponseWriter
	open  bool
	begun bool
	held  []BuildLine
	err   error
}

// release lets the lines out.
func (l *lineWriter) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open {
		return
	}
	l.open = true
	for _, held := range l.held {
		l.write(held)
	}
	l.held = nil
}

// flush is release unless nothing was said; it reports whether the answer has begun.
func (l *lineWriter) flush() bool {
	l.mu.Lock()
	said := l.begun || len(l.held) > 0
	l.mu.Unlock()
	if said {
		l.release()
	}
	return said
}

func (l *lineWriter) line(v BuildLine) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.open:
		l.write(v)
	case len(l.held) < maxHeld:
		l.held = append(l.held, v)
	}
}

func (l *lineWriter) write(v BuildLine) {
	if l.err != nil {
		return
	}
	if !l.begun {
		l.begun = true
		l.w.Header().Set("Content-Type", "application/x-ndjson")
		l.w.Header().Set("Cache-Control", "no-store")
		l.w.Header().Set("X-Accel-Buffering", "no")
	}
	if l.err = json.NewEncoder(l.w).Encode(v); l.err != nil {
		l.err = fmt.Errorf("write the build's log: %w", l.err)
		return
	}
	_ = http.NewResponseController(l.w).Flush() // a writer that cannot is not buffered either
}
