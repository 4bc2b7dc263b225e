package pods

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"time"

	"github.com/droverhq/drover/runtime"
)

// A Source tells of pods beside the labels of their containers: [NewKubelet], [NewAPIServer], [NewResourceManager].
type Source interface {
	// Name is that of the source in runtime.Pod.Sources.
	Name() string
	// Follow blocks until ctx ends. It calls told with all the pods of the node whenever there is news, and failed when
	// it cannot know them; what was told last stays true then. Both are called from one goroutine.
	Follow(ctx context.Context, told func([]*PodInfo), failed func(error))
}

// A PodInfo is what a source tells of one pod. What it does not know is zero.
type PodInfo struct {
	Namespace   string
	Name        string
	UID         string // that of the containers' labels; "" matches all pods of the name
	NodeName    string
	Phase       string
	PodIP       string
	HostIP      string
	Hostname    string
	Labels      map[string]string
	Annotations map[string]string
	Created     time.Time
	Containers  map[string]ContainerInfo // by name; nil if they are not known
}

// A ContainerInfo is what a source tells of one container.
type ContainerInfo struct {
	Init         bool // runs before the others and ends
	Sidecar      bool // an init container that goes on
	Ephemeral    bool
	RestartCount int
}

// fill puts what is known over what is there.
func (i *PodInfo) fill(p *runtime.Pod) {
	for _, f := range []struct {
		to   *string
		from string
	}{
		{&p.NodeName, i.NodeName}, {&p.Phase, i.Phase}, {&p.PodIP, i.PodIP}, {&p.HostIPAddr, i.HostIP}, {&p.Hostname, i.Hostname},
	} {
		if f.from != "" {
			*f.to = f.from
		}
	}
	if i.Labels != nil {
		p.Labels = i.Labels
	}
	if i.Annotations != nil {
		p.Annotations = i.Annotations
	}
	if !i.Created.IsZero() {
		p.Created = i.Created
	}
}

// told is the last word of a source.
type told struct{ pods map[podKey]*PodInfo }

type sourceInfos struct {
	name string
	pods map[podKey]*PodInfo
}

// infos returns what the sources have told, in their order. The caller holds mu.
func (s *Store) infos() []sourceInfos {
	var out []sourceInfos
	for _, src := range s.cfg.Sources {
		if t, ok := s.told[src.Name()]; ok {
			out = append(out, sourceInfos{src.Name(), t.pods})
		}
	}
	return out
}

// follow keeps what a source tells.
func (s *Store) follow(ctx context.Context, src Source) {
	name := src.Name()
	src.Follow(ctx, func(list []*PodInfo) {
		s.report(name, nil)
		s.mu.Lock()
		before := s.told[name].pods
		now := make(map[podKey]*PodInfo, len(list))
		for _, p := range list {
			key := podKey{p.Namespace, p.Name, p.UID}
			if old := before[key]; old != nil && reflect.DeepEqual(old, p) {
				p = old // so that its pod is not made anew
			}
			now[key] = p
		}
		s.told[name] = told{now}
		s.mu.Unlock()
		poke(s.refreshNow)
	}, func(err error) { s.report(name, err) })
}

const (
	maxAnswer  = 64 << 20
	maxBackoff = 30 * time.Second
)

// poll asks again and again: every interval, and sooner after a failure at first.
func poll(ctx context.Context, interval time.Duration, ask func(context.Context) ([]*PodInfo, error), told func([]*PodInfo), failed func(error)) {
	backoff := min(time.Second, interval)
	for {
		wait := interval
		list, err := ask(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			failed(err)
			wait = backoff
			backoff = min(2*backoff, maxBackoff)
		default:
			told(list)
			backoff = min(time.Second, interval)
		}
		if sleep(ctx, wait) != nil {
			return
		}
	}
}

// get fetches a JSON document. Everything but a 200 with JSON is an error, so that nobody takes a proxy's page for an
// empty list. The URL's secrets are not in the errors.
func get(ctx context.Context, client *http.Client, address string, header http.Header) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, errors.New("the address is no URL")
	}
	req.Header = header
	resp, err := client.Do(req)
	if err != nil {
		var where *url.Error
		if errors.As(err, &where) {
			err = where.Err
		}
		return nil, fmt.Errorf("%s does not answer: %w", req.URL.Host, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	switch {
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%s answers %s: %.200q", req.URL.Host, resp.Status, strings.TrimSpace(string(body)))
	case err != nil:
		return nil, fmt.Errorf("%s breaks its answer off: %w", req.URL.Host, err)
	case len(body) > maxAnswer:
		return nil, fmt.Errorf("%s answers with more than %d bytes", req.URL.Host, maxAnswer)
	case kind == "text/html":
		return nil, fmt.Errorf("%s answers with a page, not with JSON: %.200q", req.URL.Host, strings.TrimSpace(string(body)))
	}
	return body, nil
}
