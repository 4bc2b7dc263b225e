package docker

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/distribution/reference"
	"github.com/docker/docker/api/types/registry"

	"github.com/droverhq/drover/runtime"
)

// plainHTTP is how a daemon words that it tried TLS and got plain HTTP.
const plainHTTP = "server gave HTTP response to HTTPS client"

// Push sends an image to its registry. The end of ctx ends the push in the daemon too.
func (e *Engine) Push(ctx context.Context, req runtime.PushRequest, progress func(runtime.PullProgress)) (runtime.PushResult, error) {
	op := "push " + shorten(req.Ref)
	var result runtime.PushResult
	named, err := reference.ParseNormalizedNamed(req.Ref)
	if err != nil || len(req.Ref) > 1024 {
		return result, invalid(op, "%q is no image reference", shorten(req.Ref))
	}
	if _, ok := named.(reference.Digested); ok {
		return result, invalid(op, "a push is of a tag, not of a digest")
	}
	tagged, ok := reference.TagNameOnly(named).(reference.Tagged)
	if !ok {
		return result, invalid(op, "%q has no tag", shorten(req.Ref))
	}
	auth := req.Auth
	if auth == nil {
		auth = &runtime.RegistryAuth{} // the daemon insists on the header
	}
	encoded, err := encodeAuth(auth)
	if err != nil {
		return result, invalid(op, "%v", err)
	}
	header := http.Header{"User-Agent": e.header["User-Agent"], http.CanonicalHeaderKey(registry.AuthHeader): {encoded}}
	query := url.Values{"tag": {tagged.Tag()}}.Encode()
	err = e.progressing(ctx, op, req.Inactivity, func(ctx context.Context, s *session, alive func()) error {
		resp, err := e.request(ctx, e.long, s, http.MethodPost, "/images/"+named.Name()+"/push", query, nil, header)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		return readProgress(resp.Body, progress, alive, func(line progressLine) bool {
			return json.Unmarshal(line.Aux, &result) == nil && result.Digest != ""
		})
	})
	return result, namePlainHTTP(err)
}

// namePlainHTTP gives the error of a registry without TLS its class.
func namePlainHTTP(err error) error {
	var known *runtime.Error
	if !errors.As(err, &known) || !strings.Contains(known.Message, plainHTTP) {
		return err
	}
	named := *known
	named.Kind = runtime.ErrInvalid
	named.Cause = runtime.ErrPlainHTTP
	if known.Cause != nil {
		named.Cause = errors.Join(runtime.ErrPlainHTTP, known.Cause)
	}
	return &named
}
