package docker

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/docker/docker/api/types/build"
	"github.com/docker/docker/api/types/registry"

	"github.com/droverhq/drover/runtime"
)

// defaultInactivity is how long a pull may show no progress.
const defaultInactivity = 5 * time.Minute

// progressLine is one message of a pull's or build's stream.
type progressLine struct {
	ID             string
	Status         string
	Stream         string
	ProgressDetail struct{ Current, Total int64 }
	Error          string
	ErrorDetail    struct {
		Code    int
		Message string
	}
	Aux json.RawMessage
}

// Pull fetches an image. The end of ctx ends the pull in the daemon too.
func (e *Engine) Pull(ctx context.Context, req runtime.PullRequest, progress func(runtime.PullProgress)) error {
	op := "pull " + shorten(req.Ref)
	if _, err := imageRef(op, req.Ref); err != nil {
		return err
	}
	named, err := reference.ParseNormalizedNamed(req.Ref)
	if err != nil {
		return invalid(op, "%v", err)
	}
	query := url.Values{"fromImage": {named.Name()}}
	if digested, ok := named.(reference.Digested); ok {
		query.Set("tag", digested.Digest().String())
	} else if tagged, ok := reference.TagNameOnly(named).(reference.Tagged); ok {
		query.Set("tag", tagged.Tag())
	}
	if req.Platform != "" {
		query.Set("platform", strings.ToLower(req.Platform))
	}
	header := http.Header{"User-Agent": e.header["User-Agent"]}
	if req.Auth != nil {
		auth, err := encodeAuth(req.Auth)
		if err != nil {
			return invalid(op, "%v", err)
		}
		header.Set(registry.AuthHeader, auth)
	}
	err = e.progressing(ctx, op, req.Inactivity, func(ctx context.Context, s *session, alive func()) error {
		resp, err := e.request(ctx, e.long, s, http.MethodPost, "/images/create", query.Encode(), nil, header)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		return readProgress(resp.Body, progress, alive, func(line progressLine) bool {
			// The daemon's last word; engines that only resemble it say it otherwise, with the image's id.
			return strings.HasPrefix(line.Status, "Status: ") || strings.HasPrefix(line.Status, "Digest: ") ||
				strings.HasPrefix(resp.Header.Get("Server"), "Libpod/") && line.Status == "" && line.ID != ""
		})
	})
	return namePlainHTTP(err)
}

// BuildRemote builds an image from a URL that the daemon fetches.
func (e *Engine) BuildRemote(ctx context.Context, remote, tag string, progress func(runtime.PullProgress)) error {
	op := "build " + shorten(tag)
	if remote == "" {
		return invalid(op, "no remote context")
	}
	if tag != "" {
		if _, err := imageRef(op, tag); err != nil {
			return err
		}
	}
	return e.progressing(ctx, op, 0, func(ctx context.Context, s *session, alive func()) error {
		opts := build.ImageBuildOptions{RemoteContext: remote, Remove: true, ForceRemove: true}
		if tag != "" {
			opts.Tags = []string{tag}
		}
		resp, err := s.long.ImageBuild(ctx, nil, opts)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		return readProgress(resp.Body, progress, alive, func(line progressLine) bool {
			return len(line.Aux) > 0 || strings.HasPrefix(line.Stream, "Successfully built ")
		})
	})
}

// progressing runs a call that has no total timeout but must show that it is alive.
func (e *Engine) progressing(parent context.Context, op string, inactivity time.Duration, fn func(ctx context.Context, s *session, alive func()) error) error {
	s, err := e.opened(parent, op)
	if err != nil {
		return err
	}
	if inactivity <= 0 {
		inactivity = defaultInactivity
	}
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	stalled := &runtime.Error{Message: "no progress for " + inactivity.String()}
	timer := time.AfterFunc(inactivity, func() { cancel(stalled) })
	defer timer.Stop()
	err = fn(ctx, s, func() { timer.Reset(inactivity) })
	if err == nil {
		return nil
	}
	return e.wrapLong(parent, op, cause(ctx, err))
}

// readProgress reads a stream to its end. It is good only if it says so: last reports the line that does.
func readProgress(r io.Reader, progress func(runtime.PullProgress), alive func(), last func(progressLine) bool) error {
	decoder := json.NewDecoder(r)
	complete := false
	for {
		var line progressLine
		err := decoder.Decode(&line)
		switch {
		case errors.Is(err, io.EOF) && complete:
			return nil
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return &runtime.Error{Kind: runtime.ErrUnavailable, Message: "the daemon's answer ended too early", Cause: io.ErrUnexpectedEOF}
		case err != nil:
			return err
		}
		alive()
		if line.Error != "" || line.ErrorDetail.Message != "" {
			return refusedLine(line)
		}
		complete = complete || last(line)
		if progress == nil {
			continue
		}
		text := strings.TrimSpace(line.Status + line.Stream)
		if text == "" {
			continue
		}
		progress(runtime.PullProgress{Layer: line.ID, Status: text, Current: line.ProgressDetail.Current, Total: line.ProgressDetail.Total})
	}
}

// refusedLine is the error of a line that carries one.
func refusedLine(line progressLine) error {
	message := line.ErrorDetail.Message
	if message == "" {
		message = line.Error
	}
	var kind error
	if line.ErrorDetail.Code >= http.StatusBadRequest {
		kind = kindOfStatus(line.ErrorDetail.Code)
	}
	return &runtime.Error{Kind: kind, Message: clean(message)}
}

// encodeAuth is the value of X-Registry-Auth.
func encodeAuth(a *runtime.RegistryAuth) (string, error) {
	server := a.ServerAddress
	if server == "https://docker.io" || server == "docker.io" { // its credentials are kept under the old name
		server = "https://index.docker.io/v1/"
	}
	text, err := json.Marshal(struct {
		registry.AuthConfig
		Email string `json:"email,omitempty"` // some registries of that time still ask for it
	}{
		AuthConfig: registry.AuthConfig{Username: a.Username, Password: a.Password, IdentityToken: a.IdentityToken, ServerAddress: server},
		Email:      a.Email,
	})
	if err != nil {
		return "", err
	}
	return base64.URLEncoding.EncodeToString(text), nil
}
