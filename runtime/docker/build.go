package docker

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/api/types/build"
	"github.com/docker/docker/api/types/registry"
	"github.com/docker/docker/api/types/versions"

	"github.com/droverhq/drover/runtime"
)

const (
	// buildInactivity is how long a builder may say nothing: a compiler says nothing for long.
	buildInactivity = time.Hour
	buildTail       = 20 // lines of a failed step that are told again with the failure
	maxBuildText    = 64 << 10
	buildKitAPI     = "1.39" // the first API version with BuildKit
)

var _ runtime.ImageBuilder = (*Engine)(nil)

// BuildImage builds an image. BuildKit is used without a client session: the context goes to it as a tar, which it
// takes as well; what needs a session, such as secrets and credentials of registries, is not there.
func (e *Engine) BuildImage(ctx context.Context, req runtime.BuildRequest, source io.Reader, step func(runtime.BuildStep)) (runtime.BuildResult, error) {
	mask := masker(req.Remote)
	op := strings.TrimSpace("build " + shorten(mask(firstOf(req.Tags, req.Remote))))
	var result runtime.BuildResult
	if err := checkBuild(op, &req, source != nil); err != nil {
		return result, err
	}
	builder, err := e.builder(ctx, op, &req)
	if err != nil {
		return result, err
	}
	query, header, err := buildQuery(&req, builder, source != nil)
	if err != nil {
		return result, invalid(op, "%v", err)
	}
	header.Set("User-Agent", e.header.Get("User-Agent"))
	if req.Inactivity <= 0 {
		req.Inactivity = buildInactivity
	}
	out := &buildOutput{step: step, mask: mask, classic: builder == build.BuilderV1}
	err = e.progressing(ctx, op, req.Inactivity, func(ctx context.Context, s *session, alive func()) error {
		var body io.Reader
		if source != nil {
			body = &counted{r: source, each: func(int64) { alive() }}
		}
		resp, err := e.request(ctx, e.long, s, http.MethodPost, "/build", query.Encode(), body, header)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		return out.read(resp.Body, alive)
	})
	if err != nil {
		return result, out.explain(op, err)
	}
	result = runtime.BuildResult{ID: out.imageID, Tags: append([]string{}, req.Tags...), Builder: runtime.BuilderBuildKit}
	if out.classic {
		result.Builder = runtime.BuilderClassic
	}
	return result, nil
}

func firstOf(list []string, other string) string {
	if len(list) > 0 {
		return list[0]
	}
	return other
}

// remotePattern is what the daemon takes as a git or tar URL. Everything else it would take as an option of its own.
var remotePattern = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^(https?://|git://|ssh://|git@[\w.-]+:|github\.com/)[^\s]+$`)
})

func checkBuild(op string, req *runtime.BuildRequest, hasSource bool) error {
	for _, tag := range req.Tags {
		if err := targetRef(op, tag); err != nil {
			return err
		}
		if tag == "" {
			return invalid(op, "an empty name is no image reference")
		}
	}
	switch {
	case hasSource && req.Remote != "":
		return invalid(op, "there is a context and a URL of one")
	case !hasSource && req.Remote == "":
		return invalid(op, "there is no context")
	case !hasSource && !remotePattern().MatchString(req.Remote):
		return invalid(op, "%q is no git or tar URL", shorten(masker(req.Remote)(req.Remote)))
	}
	if !slices.Contains([]string{runtime.BuilderAuto, runtime.BuilderBuildKit, runtime.BuilderClassic}, req.Builder) {
		return invalid(op, "builder %.40q is neither buildkit nor classic", req.Builder)
	}
	return nil
}

// builder chooses. A daemon that says nothing has both: older ones say only what they are configured to prefer.
func (e *Engine) builder(ctx context.Context, op string, req *runtime.BuildRequest) (build.BuilderVersion, error) {
	if req.Builder == runtime.BuilderClassic {
		return build.BuilderV1, nil
	}
	prefers, has := build.BuilderVersion(""), false
	err := e.read(ctx, op, func(ctx context.Context, s *session) error {
		ping, err := s.api.Ping(ctx)
		prefers = ping.BuilderVersion
		has = !versions.LessThan(s.version, buildKitAPI) && ping.OSType != "windows"
		return err
	})
	switch {
	case err != nil:
		return "", err
	case req.Builder == runtime.BuilderBuildKit && len(req.Auths) > 0:
		return "", invalid(op, "BuildKit cannot be given credentials of registries: use the classic builder, or pull the base images before")
	case req.Builder == runtime.BuilderBuildKit && !has:
		return "", &runtime.Error{Op: op, Kind: runtime.ErrUnsupported, Message: "the daemon of this host has no BuildKit"}
	case req.Builder == runtime.BuilderBuildKit, has && prefers != build.BuilderV1 && len(req.Auths) == 0:
		return build.BuilderBuildKit, nil
	}
	return build.BuilderV1, nil
}

func buildQuery(req *runtime.BuildRequest, builder build.BuilderVersion, hasSource bool) (url.Values, http.Header, error) {
	query := url.Values{"version": {string(builder)}, "rm": {"1"}, "forcerm": {"1"}, "t": req.Tags}
	for name, value := range map[string]string{"dockerfile": req.Dockerfile, "target": req.Target, "remote": req.Remote, "platform": strings.ToLower(req.Platform)} {
		if value != "" {
			query.Set(name, value)
		}
	}
	for name, on := range map[string]bool{"nocache": req.NoCache, "pull": req.Pull} {
		if on {
			query.Set(name, "1")
		}
	}
	for name, values := range map[string]map[string]string{"buildargs": req.Args, "labels": req.Labels} {
		if len(values) == 0 {
			continue
		}
		b, err := json.Marshal(values)
		if err != nil {
			return nil, nil, err
		}
		query.Set(name, string(b))
	}
	header := http.Header{}
	if hasSource {
		header.Set("Content-Type", "application/x-tar")
	}
	if len(req.Auths) > 0 {
		auths := make(map[string]registry.AuthConfig, len(req.Auths))
		for host, a := range req.Auths {
			auths[host] = registry.AuthConfig{Username: a.Username, Password: a.Password, IdentityToken: a.IdentityToken, ServerAddress: a.ServerAddress}
		}
		b, err := json.Marshal(auths)
		if err != nil {
			return nil, nil, err
		}
		header.Set("X-Registry-Config", base64.URLEncoding.EncodeToString(b))
	}
	return query, header, nil
}

// masker returns what hides the password of a URL in a text.
func masker(remote string) func(string) string {
	u, err := url.Parse(remote)
	if err != nil || u.User == nil || u.User.String() == "git" {
		return func(s string) string { return s }
	}
	secrets := []string{u.User.String()}
	if p, ok := u.User.Password(); ok && p != "" {
		secrets = append(secrets, p)
	}
	return func(s string) string {
		for _, secret := range secrets {
			s = strings.ReplaceAll(s, secret, "***")
		}
		return s
	}
}

// A buildOutput reads what a builder says.
type buildOutput struct {
	step    func(runtime.BuildStep)
	mask    func(string) string
	classic bool
	imageID string

	current runtime.BuildStep // classic: the step that is under way
	layer   string            // classic: the image after the last step that is done
	tails   map[string]*tail  // by step id, "" with the classic builder
	vertex  map[string]*vertex
	failed  *runtime.BuildStep
}

// read reads the answer to its end, which must have named the image.
func (o *buildOutput) read(r io.Reader, alive func()) error {
	decoder := json.NewDecoder(r)
	for {
		var line progressLine
		err := decoder.Decode(&line)
		switch {
		case errors.Is(err, io.EOF) && o.imageID != "":
			return nil
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return &runtime.Error{Kind: runtime.ErrUnavailable, Message: "the daemon's answer ended too early", Cause: io.ErrUnexpectedEOF}
		case err != nil:
			return err
		}
		alive()
		if line.Error != "" || line.ErrorDetail.Message != "" {
			if o.classic && o.current.Step != "" {
				o.fail(o.current, o.layer)
			}
			line.ErrorDetail.Code = 0 // it is the step's exit code
			return refusedLine(line)
		}
		if line.ID == "moby.buildkit.trace" {
			if err := o.trace(line.Aux); err != nil {
				return &runtime.Error{Kind: runtime.ErrUnavailable, Message: "BuildKit's trace cannot be read", Cause: err}
			}
			continue
		}
		var made struct{ ID string }
		if len(line.Aux) > 0 && json.Unmarshal(line.Aux, &made) == nil && made.ID != "" {
			o.imageID = made.ID
			continue
		}
		o.said(line)
	}
}

// explain words a failure: where it was, why, and what there is to look into.
func (o *buildOutput) explain(op string, err error) error {
	var known *runtime.Error
	if !errors.As(err, &known) {
		return err
	}
	out := *known
	out.Message = strings.TrimSuffix(o.mask(oneLine(out.Message)), ".")
	for _, noise := range []string{"failed to solve with frontend dockerfile.v0: ", "failed to solve: ", "failed to create LLB definition: "} {
		out.Message = strings.TrimPrefix(out.Message, noise)
	}
	if f := o.failed; f != nil {
		at := strings.TrimSpace("step " + f.Step)
		if f.Name != "" && !strings.Contains(out.Message, f.Name) {
			at += " (" + shorten(f.Name) + ")"
		}
		out.Message = at + ": " + out.Message
		if f.Image != "" {
			out.Message += fmt.Sprintf("; the image before that step is %s", shortID(f.Image))
		}
		out.Kind = runtime.ErrInvalid // of the Dockerfile's doing, and not the engine's
	} else if lower := strings.ToLower(out.Message); strings.Contains(lower, "dockerfile parse error") || strings.Contains(lower, "cannot locate specified dockerfile") {
		out.Kind = runtime.ErrInvalid
	}
	return &out
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

func shortID(id string) string {
	id = strings.TrimPrefix(id, "sha256:")
	return id[:min(12, len(id))]
}

// fail tells that a step failed, once.
func (o *buildOutput) fail(s runtime.BuildStep, image string) {
	if o.failed != nil {
		return
	}
	s.State, s.Image, s.Text, s.Stream = runtime.BuildFailed, image, "", 0
	if t := o.tails[s.ID]; t != nil {
		s.Tail = t.lines()
	}
	s.Name = o.mask(s.Name)
	o.failed = &s
	o.tell(s)
}

func (o *buildOutput) tell(s runtime.BuildStep) {
	s.Name, s.Text = o.mask(s.Name), o.mask(s.Text)
	if o.step != nil {
		o.step(s)
	}
}

// output tells a piece of a step's output.
func (o *buildOutput) output(s runtime.BuildStep, stream int, text string) {
	if text == "" {
		return
	}
	if o.tails == nil {
		o.tails = map[string]*tail{}
	}
	t := o.tails[s.ID]
	if t == nil {
		t = &tail{}
		o.tails[s.ID] = t
	}
	for part := range chunks(strings.ToValidUTF8(text, "\uFFFD"), maxBuildText) {
		t.add(o.mask(part))
		o.tell(runtime.BuildStep{Step: s.Step, ID: s.ID, Stream: stream, Text: part})
	}
}

// chunks yields text in pieces of at most n bytes.
func chunks(text string, n int) func(func(string) bool) {
	return func(yield func(string) bool) {
		for len(text) > n {
			if !yield(strings.ToValidUTF8(text[:n], "")) {
				return
			}
			text = text[n:]
		}
		if text != "" {
			yield(text)
		}
	}
}

// stepLine is how the classic builder begins a step.
var stepLine = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^Step (\d+/\d+) : (.*)$`) })

// said takes one message of the classic builder. What it says of itself begins as no program's output is likely to;
// the classic builder has no other form.
func (o *buildOutput) said(line progressLine) {
	text := line.Stream
	bare := strings.TrimRight(text, "\n")
	switch m := stepLine().FindStringSubmatch(bare); {
	case line.Status != "": // a base image is pulled
		o.tell(runtime.BuildStep{Step: o.current.Step, Layer: line.ID, Name: line.Status, Current: line.ProgressDetail.Current, Total: line.ProgressDetail.Total})
	case m != nil:
		o.finish()
		delete(o.tails, "")
		o.current = runtime.BuildStep{Step: m[1], Name: m[2]}
		s := o.current
		s.State = runtime.BuildStarted
		o.tell(s)
	case strings.HasPrefix(bare, " ---> Using cache"):
		o.current.State = runtime.BuildCached
	case strings.HasPrefix(bare, " ---> Running in "), strings.HasPrefix(bare, "Removing intermediate container "):
	case strings.HasPrefix(bare, " ---> "):
		o.layer = strings.TrimPrefix(bare, " ---> ")
	case strings.HasPrefix(bare, "Successfully built "), strings.HasPrefix(bare, "Successfully tagged "):
		o.finish()
	case bare == "":
	default:
		stream := 1
		if rest, ok := strings.CutPrefix(text, "\x1b[91m"); ok {
			stream, text = 2, strings.TrimSuffix(rest, "\x1b[0m")
		}
		o.output(o.current, stream, text)
	}
}

// finish tells that the classic builder's step is done.
func (o *buildOutput) finish() {
	if o.current.Step == "" {
		return
	}
	s := o.current
	o.current = runtime.BuildStep{}
	s.Layer = o.layer
	if s.State == "" {
		s.State = runtime.BuildDone
	}
	o.tell(s)
}

// A tail keeps the last lines of a step.
type tail struct {
	kept []string
	part string // a line that has not ended
}

func (t *tail) add(text string) {
	lines := strings.Split(t.part+text, "\n")
	t.part = lines[len(lines)-1]
	if len(t.part) > maxMessage {
		t.part = t.part[:maxMessage]
	}
	for _, l := range lines[:len(lines)-1] {
		if len(l) > maxMessage {
			l = strings.ToValidUTF8(l[:maxMessage], "") + "..."
		}
		t.kept = append(t.kept, strings.TrimRight(l, "\r"))
	}
	if over := len(t.kept) - buildTail; over > 0 {
		t.kept = append(t.kept[:0:0], t.kept[over:]...)
	}
}

func (t *tail) lines() []string {
	if t.part == "" {
		return slices.Clone(t.kept)
	}
	all := append(slices.Clone(t.kept), t.part)
	return all[max(0, len(all)-buildTail):]
}

// millisBetween is how long something took that began and ended.
func millisBetween(begin, end time.Time) int64 {
	if begin.IsZero() || end.Before(begin) {
		return 0
	}
	return end.Sub(begin).Milliseconds()
}

// stepOf takes BuildKit's name of a step apart: "[build 2/5] RUN make" is step "build 2/5", "RUN make".
func stepOf(name string) (step, instruction string) {
	if rest, ok := strings.CutPrefix(name, "["); ok {
		if in, after, ok := strings.Cut(rest, "] "); ok && isStep(in) {
			return in, after
		}
	}
	return "", name
}

// isStep tells "2/5" and "build 2/5" from "internal" and "auth".
func isStep(s string) bool {
	last := s[strings.LastIndexByte(s, ' ')+1:]
	n, of, ok := strings.Cut(last, "/")
	if !ok {
		return false
	}
	_, err1 := strconv.Atoi(strings.TrimSpace(n))
	_, err2 := strconv.Atoi(of)
	return err1 == nil && err2 == nil
}
