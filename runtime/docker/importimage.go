package docker

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/distribution/reference"

	"github.com/droverhq/drover/runtime"
)

// reportBytes is how many bytes of an upload lie between two reports.
const reportBytes = 1 << 20

// ImportImage makes an image of a tar stream.
func (e *Engine) ImportImage(ctx context.Context, req runtime.ImportRequest, tar io.Reader, progress func(runtime.PullProgress)) (string, error) {
	op := "import " + shorten(req.Ref)
	if err := targetRef(op, req.Ref); err != nil {
		return "", err
	}
	query := url.Values{"fromSrc": {"-"}, "changes": req.Changes}
	if req.Ref != "" {
		named, err := reference.ParseNormalizedNamed(req.Ref)
		if err != nil {
			return "", invalid(op, "%v", err)
		}
		query.Set("repo", named.Name())
		if tagged, ok := reference.TagNameOnly(named).(reference.Tagged); ok {
			query.Set("tag", tagged.Tag())
		}
	}
	if req.Comment != "" {
		query.Set("message", req.Comment)
	}
	if req.Platform != "" {
		query.Set("platform", strings.ToLower(req.Platform))
	}
	id := ""
	err := e.upload(ctx, op, "/images/create", query, req.Inactivity, tar, progress, func(line progressLine) {
		if strings.HasPrefix(line.Status, "sha256:") {
			id = line.Status
		}
	})
	if err == nil && id == "" {
		err = e.wrap(ctx, op, &runtime.Error{Kind: runtime.ErrUnavailable, Message: "the daemon's answer ended too early"})
	}
	return id, err
}

// SaveImages writes images as one tar.
func (e *Engine) SaveImages(ctx context.Context, refs []string, w io.Writer) error {
	if len(refs) == 0 {
		return invalid("save images", "no image is named")
	}
	op := "save image " + shorten(refs[0])
	for _, ref := range refs {
		if _, err := imageRef(op, ref); err != nil {
			return err
		}
	}
	return e.progressing(ctx, op, 0, func(ctx context.Context, s *session, alive func()) error {
		resp, err := e.request(ctx, e.long, s, http.MethodGet, "/images/get", url.Values{"names": refs}.Encode(), nil, nil)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		_, err = io.Copy(w, &counted{r: resp.Body, each: func(int64) { alive() }})
		return err
	})
}

// LoadImages takes a tar of SaveImages.
func (e *Engine) LoadImages(ctx context.Context, tar io.Reader, progress func(runtime.PullProgress)) ([]string, error) {
	loaded := []string{}
	err := e.upload(ctx, "load images", "/images/load", url.Values{"quiet": {"1"}}, 0, tar, progress, func(line progressLine) {
		for _, prefix := range []string{"Loaded image: ", "Loaded image ID: "} {
			if name, ok := strings.CutPrefix(strings.TrimSpace(line.Stream), prefix); ok {
				loaded = append(loaded, name)
			}
		}
	})
	return loaded, err
}

// upload posts a stream and reads the lines that the daemon answers. It reports the bytes that it has sent; what the
// daemon says of its own goes only to said.
func (e *Engine) upload(ctx context.Context, op, path string, query url.Values, inactivity time.Duration, body io.Reader,
	progress func(runtime.PullProgress), said func(progressLine),
) error {
	header := http.Header{"User-Agent": e.header["User-Agent"], "Content-Type": {"application/x-tar"}}
	return e.progressing(ctx, op, inactivity, func(ctx context.Context, s *session, alive func()) error {
		reported := int64(0) // of the one goroutine that reads the body
		var mu sync.Mutex    // guards over, and keeps the caller's function from being called after the return
		over := false
		defer func() { mu.Lock(); defer mu.Unlock(); over = true }()
		source := &counted{r: body, each: func(n int64) {
			mu.Lock()
			defer mu.Unlock()
			if over {
				return
			}
			alive()
			if progress != nil && n-reported >= reportBytes {
				reported = n
				progress(runtime.PullProgress{Status: "Sending", Current: n})
			}
		}}
		resp, err := e.request(ctx, e.long, s, http.MethodPost, path, query.Encode(), source, header)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		return readProgress(resp.Body, nil, alive, func(line progressLine) bool {
			said(line)
			return line.Status != "" || line.Stream != ""
		})
	})
}

// A counted reader tells after each Read how many bytes there were in all.
type counted struct {
	r    io.Reader
	n    int64
	each func(total int64)
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if n > 0 {
		c.each(c.n)
	}
	return n, err
}
