package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"
)

// rawDocker calls dockerd with net/http alone: the floor that everything else is compared with.
type rawDocker struct {
	http *http.Client
	base string // "http://d/v1.41"
	run  string // value of the label: runs at the same time leave each other's containers alone
}

// newRawDocker returns a client of the engine at a unix socket path, with as many kept connections as workers.
func newRawDocker(socket string, workers int) *rawDocker {
	return &rawDocker{
		base: "http://d",
		run:  strconv.Itoa(os.Getpid()),
		http: &http.Client{Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, "unix", socket)
			},
			MaxIdleConnsPerHost: workers,
			MaxIdleConns:        workers,
		}},
	}
}

func (d *rawDocker) close() { d.http.CloseIdleConnections() }

// do sends one call and reads the whole answer, undecoded.
func (d *rawDocker) do(ctx context.Context, method, path string, body any) ([]byte, error) {
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		in = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, d.base+path, in)
	if err != nil {
		return nil, err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := d.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 300 && resp.StatusCode != http.StatusNotModified {
		return nil, fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, bytes.TrimSpace(out))
	}
	return out, nil
}

// version returns the engine's version.
func (d *rawDocker) version(ctx context.Context) (string, error) {
	b, err := d.do(ctx, http.MethodGet, "/version", nil)
	if err != nil {
		return "", err
	}
	var v struct{ Version string }
	if err := json.Unmarshal(b, &v); err != nil {
		return "", fmt.Errorf("version of the engine: %w", err)
	}
	return v.Version, nil
}

func (d *rawDocker) inspect(ctx context.Context, id string) error {
	_, err := d.do(ctx, http.MethodGet, "/containers/"+id+"/json", nil)
	return err
}

// benchLabel marks what a bench made, so that a broken run can be cleaned by hand. Its value is the run.
const benchLabel = "io.drover.bench"

func (d *rawDocker) create(ctx context.Context, name, image string, cmd ...string) (string, error) {
	return d.createLabelled(ctx, name, image, map[string]string{}, cmd...)
}

// createLabelled adds the bench's own label.
func (d *rawDocker) createLabelled(ctx context.Context, name, image string, labels map[string]string, cmd ...string) (string, error) {
	labels[benchLabel] = d.run
	b, err := d.do(ctx, http.MethodPost, "/containers/create?name="+url.QueryEscape(name), map[string]any{
		"Image": image, "Cmd": cmd,
		"Labels":     labels,
		"HostConfig": map[string]any{"NetworkMode": "none"},
	})
	if err != nil {
		return "", err
	}
	var v struct{ ID string }
	return v.ID, json.Unmarshal(b, &v)
}

func (d *rawDocker) start(ctx context.Context, id string) error {
	_, err := d.do(ctx, http.MethodPost, "/containers/"+id+"/start", nil)
	return err
}

// kill ends a container the fastest way there is: a stop alone waits for an answer to SIGTERM that a first process
// without a handler never gives.
func (d *rawDocker) kill(ctx context.Context, id string) error {
	if _, err := d.do(ctx, http.MethodPost, "/containers/"+id+"/kill", nil); err != nil {
		return err
	}
	_, err := d.do(ctx, http.MethodPost, "/containers/"+id+"/stop?t=0", nil)
	return err
}

func (d *rawDocker) remove(ctx context.Context, id string) error {
	_, err := d.do(ctx, http.MethodDelete, "/containers/"+id+"?force=1&v=1", nil)
	return err
}

// removeAll removes what this run made, on a fresh context so that an interrupted run cleans up too.
func (d *rawDocker) removeAll() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	filters := url.QueryEscape(`{"label":["` + benchLabel + "=" + d.run + `"]}`)
	b, err := d.do(ctx, http.MethodGet, "/containers/json?all=1&filters="+filters, nil)
	if err != nil {
		return err
	}
	var rows []struct {
		ID string `json:"Id"`
	}
	if err := json.Unmarshal(b, &rows); err != nil {
		return fmt.Errorf("list of bench containers: %w", err)
	}
	for _, row := range rows {
		if err := d.remove(ctx, row.ID); err != nil {
			return err
		}
	}
	return nil
}
