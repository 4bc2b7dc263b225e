package fake

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/droverhq/drover/runtime"
)

// Inspect returns JSON of dockerd's shape.
func (e *Engine) Inspect(ctx context.Context, id string) (json.RawMessage, error) {
	op := "inspect " + id
	if err := e.enter(ctx, "Inspect", op); err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	c, err := e.find(op, id)
	if err != nil {
		return nil, err
	}
	if c.inspect == nil {
		if c.inspect, err = json.Marshal(inspectJSON(c)); err != nil {
			return nil, &runtime.Error{Op: op, Message: err.Error(), Cause: err}
		}
	}
	return bytes.Clone(c.inspect), nil
}

// State returns what callers decide on.
func (e *Engine) State(ctx context.Context, id string) (runtime.ContainerStatus, error) {
	op := "inspect " + id
	if err := e.enter(ctx, "State", op); err != nil {
		return runtime.ContainerStatus{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	c, err := e.find(op, id)
	if err != nil {
		return runtime.ContainerStatus{}, err
	}
	return runtime.ContainerStatus{
		ID: c.id, Name: c.name, Image: c.spec.Image, Running: c.running, Paused: c.paused, Status: c.status, Pid: c.pid,
		ExitCode: c.exitCode, StartedAt: c.started, FinishedAt: c.finished, TTY: c.spec.TTY, OpenStdin: c.spec.OpenStdin,
		Labels: cloneMap(c.spec.Labels), IP: c.ip, LogDriver: c.logDriver(),
	}, nil
}

func (c *container) logDriver() string {
	if c.spec.LogDriver != "" {
		return c.spec.LogDriver
	}
	return "json-file"
}

// List returns the containers that match, the newest first.
func (e *Engine) List(ctx context.Context, opts runtime.ListOptions) ([]runtime.ContainerSummary, error) {
	if err := e.enter(ctx, "List", "list containers"); err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	list := make([]runtime.ContainerSummary, 0, len(e.order))
	for i := len(e.order) - 1; i >= 0; i-- {
		c := e.order[i]
		if opts.Running && !c.running || opts.Name != "" && strings.TrimPrefix(opts.Name, "/") != c.name || !matches(c.spec.Labels, opts.Labels) {
			continue
		}
		sum := c.summary()
		if opts.Raw {
			raw, err := json.Marshal(rowJSON(c, sum))
			if err != nil {
				return nil, &runtime.Error{Op: "list containers", Message: err.Error(), Cause: err}
			}
			sum.Raw = raw
		}
		list = append(list, sum)
	}
	return list, nil
}

func (c *container) summary() runtime.ContainerSummary {
	sum := runtime.ContainerSummary{
		ID: c.id, Names: []string{c.name}, Image: c.spec.Image, ImageID: c.image.id, Command: strings.Join(c.command, " "),
		Created: c.created.Truncate(time.Second), State: c.status, Labels: cloneMap(c.spec.Labels),
	}
	switch c.status {
	case "created":
		sum.Status = "Created"
	case "running":
		sum.Status = "Up " + age(c.started)
	case "paused":
		sum.Status = "Up " + age(c.started) + " (Paused)"
	default:
		sum.Status = fmt.Sprintf("Exited (%d) %s ago", c.exitCode, age(c.finished))
	}
	if c.running {
		for _, p := range c.spec.PortBindings {
			if p.Protocol == "" {
				p.Protocol = "tcp"
			}
			if p.IP == "" {
				p.IP = "0.0.0.0"
			}
			if p.PublicPort == 0 {
				p.PublicPort = uint16(32768 + c.pid%16384)
			}
			sum.Ports = append(sum.Ports, p)
		}
	}
	return sum
}

func age(t time.Time) string {
	d := time.Since(t)
	if d < time.Minute {
		return strconv.Itoa(int(d.Seconds())) + " seconds"
	}
	return strconv.Itoa(int(d.Minutes())) + " minutes"
}

// object is JSON with keys of its own choice.
type object = map[string]any

// rowJSON is an element of dockerd's list.
func rowJSON(c *container, sum runtime.ContainerSummary) object {
	ports := []object{}
	for _, p := range sum.Ports {
		ports = append(ports, object{"IP": p.IP, "PrivatePort": p.PrivatePort, "PublicPort": p.PublicPort, "Type": p.Protocol})
	}
	return object{
		"Id": c.id, "Names": []string{"/" + c.name}, "Image": sum.Image, "ImageID": sum.ImageID, "Command": sum.Command,
		"Created": c.created.Unix(), "Ports": ports, "Labels": sum.Labels, "State": sum.State, "Status": sum.Status,
		"HostConfig": object{"NetworkMode": c.networkMode()}, "NetworkSettings": object{"Networks": c.networks()}, "Mounts": c.mounts(),
	}
}

func (c *container) networkMode() string {
	if c.spec.NetworkMode == "" {
		return "default"
	}
	return c.spec.NetworkMode
}

func (c *container) networks() object {
	name := c.networkMode()
	if name == "default" {
		name = "bridge"
	}
	if strings.HasPrefix(name, "container:") {
		return object{}
	}
	return object{name: object{"IPAddress": c.ip, "IPPrefixLen": 16, "Gateway": "172.17.0.1", "MacAddress": c.spec.MacAddress}}
}

func (c *container) mounts() []object {
	mounts := []object{}
	for _, bind := range c.spec.Binds {
		parts := strings.SplitN(bind, ":", 3)
		if len(parts) < 2 {
			continue
		}
		m := object{"Type": "bind", "Source": parts[0], "Destination": parts[1], "Mode": "", "RW": true, "Propagation": "rprivate"}
		if len(parts) > 2 {
			m["Mode"], m["RW"] = parts[2], !strings.Contains(","+parts[2]+",", ",ro,")
		}
		if !strings.HasPrefix(parts[0], "/") {
			m["Type"], m["Name"], m["Driver"] = "volume", parts[0], "local"
			m["Source"] = "/var/lib/fake/volumes/" + parts[0] + "/_data"
		}
		mounts = append(mounts, m)
	}
	i := 0
	for destination := range c.spec.Volumes {
		if i < len(c.anon) {
			mounts = append(mounts, object{
				"Type": "volume", "Name": c.anon[i], "Driver": "local", "Mode": "", "RW": true,
				"Source": "/var/lib/fake/volumes/" + c.anon[i] + "/_data", "Destination": destination,
			})
		}
		i++
	}
	return mounts
}

// portKey is "80/tcp".
func portKey(p runtime.Port) string {
	if p.Protocol == "" {
		p.Protocol = "tcp"
	}
	return strconv.Itoa(int(p.PrivatePort)) + "/" + p.Protocol
}

// bindings are published ports as dockerd writes them.
func bindings(ports []runtime.Port) object {
	out := object{}
	for _, p := range ports {
		public := ""
		if p.PublicPort != 0 {
			public = strconv.Itoa(int(p.PublicPort))
		}
		list, _ := out[portKey(p)].([]object)
		out[portKey(p)] = append(list, object{"HostIp": p.IP, "HostPort": public})
	}
	return out
}

// timeJSON is a time as dockerd writes it.
func timeJSON(t time.Time) string {
	if t.IsZero() {
		return "0001-01-01T00:00:00Z"
	}
	return t.UTC().Format(time.RFC3339Nano)
}
