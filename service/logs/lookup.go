package logs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"
)

// A Lookup finds the file of a task or request; one of the two ids is "". node is the name or address of the host that
// holds the file, "" for this one. It returns [ErrUnknownTask] for an id that it does not know.
type Lookup func(ctx context.Context, task, request string) (path, node string, err error)

// ErrUnknownTask is a task or request id that the lookup does not know.
var ErrUnknownTask = errors.New("unknown task")

// A Place is where the output of a task is.
type Place struct {
	Path string `json:"path"`           // absolute, on the host
	Node string `json:"node,omitempty"` // name or address of the host; "" is the one that is asked
}

// TableLookup looks ids up in a table. An id that has no row of its own is filled into the row "*", whose path and node
// may hold {id}; letters, digits, dots, dashes and underscores are what such an id may consist of.
func TableLookup(table map[string]Place) Lookup {
	return func(_ context.Context, task, request string) (string, string, error) {
		id := task + request
		if p, ok := table[id]; ok && id != "*" {
			return p.Path, p.Node, nil
		}
		p, ok := table["*"]
		if !ok || !plainID(id) {
			return "", "", ErrUnknownTask
		}
		fill := strings.NewReplacer("{id}", id)
		return fill.Replace(p.Path), fill.Replace(p.Node), nil
	}
}

// plainID tells whether an id can stand in a path without leading elsewhere.
func plainID(id string) bool {
	if id == "" || len(id) > 256 || strings.Trim(id, ".") == "" {
		return false
	}
	return strings.IndexFunc(id, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && !strings.ContainsRune("._-", r)
	}) < 0
}

const (
	lookupTime = 5 * time.Second
	lookupBody = 64 << 10
)

// HTTPLookup asks a service: GET base?taskId=ID or base?requestId=ID, answered by a [Place] in JSON, or by 404 for an id
// that is not known. An answer may take 5 s. Redirects are not followed. client may be nil.
func HTTPLookup(base string, client *http.Client) (Lookup, error) {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("task lookup: %q is no URL like http://host/path", base)
	}
	if client == nil {
		client = &http.Client{}
	}
	asked := *client
	asked.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return func(ctx context.Context, task, request string) (string, string, error) {
		ctx, cancel := context.WithTimeout(ctx, lookupTime)
		defer cancel()
		target := *u
		q := target.Query()
		if task != "" {
			q.Set("taskId", task)
		}
		if request != "" {
			q.Set("requestId", request)
		}
		target.RawQuery = q.Encode()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
		if err != nil {
			return "", "", err
		}
		req.Header.Set("Accept", "application/json")
		resp, err := asked.Do(req)
		if err != nil {
			return "", "", err
		}
		defer resp.Body.Close()
		switch resp.StatusCode {
		case http.StatusOK:
		case http.StatusNotFound:
			return "", "", ErrUnknownTask
		default:
			return "", "", fmt.Errorf("the lookup answered %s", resp.Status)
		}
		var p Place
		if err := json.NewDecoder(io.LimitReader(resp.Body, lookupBody)).Decode(&p); err != nil {
			return "", "", fmt.Errorf("the lookup's answer: %w", err)
		}
		if !path.IsAbs(p.Path) {
			return "", "", fmt.Errorf("the lookup's answer: path %q is not absolute", p.Path)
		}
		return p.Path, p.Node, nil
	}, nil
}

// absolute completes a relative name by the first root, as today's clients send them; one of a pod is left as it is.
// What it returns is opened through the jail like any other name.
func (s *Service) absolute(name string) string {
	if s.jail.isPod(name) || path.IsAbs(name) || len(s.jail.Roots) == 0 {
		return name
	}
	return strings.TrimSuffix(s.jail.Roots[0], "/") + "/" + name
}
