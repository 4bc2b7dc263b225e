package docker

import (
	"context"
	"encoding/json"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/droverhq/drover/runtime"
)

// Inspect returns the daemon's own JSON of a container.
func (e *Engine) Inspect(ctx context.Context, id string) (json.RawMessage, error) {
	op := "inspect " + shorten(id)
	id, err := containerID(op, id)
	if err != nil {
		return nil, err
	}
	var raw json.RawMessage
	err = e.read(ctx, op, func(ctx context.Context, s *session) (err error) {
		raw, err = e.relay(ctx, s, "/containers/"+id+"/json", "")
		return err
	})
	return raw, err
}

// inspected is the part of a container's JSON that State reads.
type inspected struct {
	ID    string
	Name  string
	State struct {
		Status                string
		Running, Paused       bool
		Pid                   int
		ExitCode              int
		StartedAt, FinishedAt time.Time
	}
	LogPath    string
	HostConfig struct {
		LogConfig struct{ Type string }
	}
	GraphDriver struct {
		Data map[string]string
	}
	Config struct {
		Image          string
		Tty, OpenStdin bool
		Labels         map[string]string
	}
	NetworkSettings struct {
		IPAddress string
		Networks  map[string]struct{ IPAddress string }
	}
}

// State decodes the few facts that callers decide on.
func (e *Engine) State(ctx context.Context, id string) (runtime.ContainerStatus, error) {
	op := "inspect " + shorten(id)
	id, err := containerID(op, id)
	if err != nil {
		return runtime.ContainerStatus{}, err
	}
	var c inspected
	err = e.read(ctx, op, func(ctx context.Context, s *session) error {
		return e.getJSON(ctx, s, "/containers/"+id+"/json", "", &c)
	})
	if err != nil {
		return runtime.ContainerStatus{}, err
	}
	st := runtime.ContainerStatus{
		ID:         c.ID,
		Name:       strings.TrimPrefix(c.Name, "/"),
		Image:      c.Config.Image,
		Running:    c.State.Running,
		Paused:     c.State.Paused,
		Status:     c.State.Status,
		Pid:        c.State.Pid,
		ExitCode:   c.State.ExitCode,
		StartedAt:  known(c.State.StartedAt),
		FinishedAt: known(c.State.FinishedAt),
		TTY:        c.Config.Tty,
		OpenStdin:  c.Config.OpenStdin,
		Labels:     c.Config.Labels,
		IP:         c.NetworkSettings.IPAddress,
		LogPath:    c.LogPath,
		LogDriver:  c.HostConfig.LogConfig.Type,
		RootFS:     c.GraphDriver.Data["MergedDir"],
	}
	for _, name := range slices.Sorted(maps.Keys(c.NetworkSettings.Networks)) {
		if st.IP == "" {
			st.IP = c.NetworkSettings.Networks[name].IPAddress
		}
	}
	if st.RootFS == "" && st.Pid > 0 { // newer daemons do not tell
		st.RootFS = "/proc/" + strconv.Itoa(st.Pid) + "/root"
	}
	return st, nil
}

// known turns the daemon's "never" into the zero time.
func known(t time.Time) time.Time {
	if t.Year() <= 1 {
		return time.Time{}
	}
	return t
}

// row is one element of the daemon's list.
type row struct {
	ID      string
	Names   []string
	Image   string
	ImageID string
	Command string
	Created int64
	State   string
	Status  string
	Labels  map[string]string
	Ports   []struct {
		IP          string
		PrivatePort uint16
		PublicPort  uint16
		Type        string
	}
}

// List returns the containers that match.
func (e *Engine) List(ctx context.Context, opts runtime.ListOptions) ([]runtime.ContainerSummary, error) {
	const op = "list containers"
	if opts.Name != "" {
		name, err := containerID(op, opts.Name)
		if err != nil {
			return nil, err
		}
		opts.Name = name
	}
	query := url.Values{}
	if !opts.Running {
		query.Set("all", "1")
	}
	filters := map[string][]string{}
	if opts.Name != "" {
		filters["name"] = []string{"^/?" + regexp.QuoteMeta(opts.Name) + "$"}
	}
	for _, key := range slices.Sorted(maps.Keys(opts.Labels)) {
		label := key
		if value := opts.Labels[key]; value != "" {
			label += "=" + value
		}
		filters["label"] = append(filters["label"], label)
	}
	if len(filters) > 0 {
		encoded, err := json.Marshal(filters)
		if err != nil {
			return nil, invalid(op, "%v", err)
		}
		query.Set("filters", string(encoded))
	}
	var list []runtime.ContainerSummary
	err := e.read(ctx, op, func(ctx context.Context, s *session) error {
		raw, err := e.relay(ctx, s, "/containers/json", query.Encode())
		if err != nil {
			return err
		}
		list, err = summaries(raw, opts)
		return err
	})
	return list, err
}

// summaries decodes a list, and with Raw also cuts it into its elements.
func summaries(raw []byte, opts runtime.ListOptions) ([]runtime.ContainerSummary, error) {
	var rows []row
	if err := json.Unmarshal(raw, &rows); err != nil {
		return nil, err
	}
	var elements []json.RawMessage
	if opts.Raw {
		if err := json.Unmarshal(raw, &elements); err != nil {
			return nil, err
		}
	}
	list := make([]runtime.ContainerSummary, 0, len(rows))
	for i, r := range rows {
		sum := runtime.ContainerSummary{
			ID: r.ID, Image: r.Image, ImageID: r.ImageID, Command: r.Command, Created: time.Unix(r.Created, 0),
			State: r.State, Status: r.Status, Labels: r.Labels,
		}
		for _, name := range r.Names {
			// "/other/alias" is what a link calls this container.
			if name = strings.TrimPrefix(name, "/"); !strings.Contains(name, "/") {
				sum.Names = append(sum.Names, name)
			}
		}
		for _, p := range r.Ports {
			sum.Ports = append(sum.Ports, runtime.Port{IP: p.IP, PrivatePort: p.PrivatePort, PublicPort: p.PublicPort, Protocol: p.Type})
		}
		if opts.Name != "" && !slices.Contains(sum.Names, opts.Name) {
			continue
		}
		if opts.Raw {
			sum.Raw = elements[i]
		}
		list = append(list, sum)
	}
	return list, nil
}
