package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/agnivade/levenshtein"
)

// Hosts lists the hosts, by name.
func (c *Client) Hosts(ctx context.Context) ([]Host, error) {
	hosts, err := List[Host](ctx, c, "hosts", nil)
	slices.SortFunc(hosts, func(a, b Host) int { return strings.Compare(a.DisplayName(), b.DisplayName()) })
	return hosts, err
}

// Containers lists the containers that are not removed, newest first. query filters on the server; nil is all.
func (c *Client) Containers(ctx context.Context, query url.Values) ([]Container, error) {
	list, err := List[Container](ctx, c, "containers", query)
	list = slices.DeleteFunc(list, func(c Container) bool { return c.State.State == "removed" || c.State.State == "purged" })
	slices.SortStableFunc(list, func(a, b Container) int { return b.Created.Compare(a.Created.Time) })
	return list, err
}

var containerID = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^1i[0-9]+$`) })

// Container finds the one container that ref means: its id, its name, the engine's id, or a prefix of that which no
// other container has; HOST/CONTAINER looks on that host. host, an id, narrows the search too unless it is empty.
func (c *Client) Container(ctx context.Context, ref, host string) (*Container, error) {
	ref, host, err := c.qualified(ctx, ref, host)
	if err != nil {
		return nil, err
	}
	if containerID().MatchString(ref) {
		var one Container
		err := c.Do(ctx, http.MethodGet, "containers/"+ref, nil, &one)
		if err == nil && one.State.State != "removed" && one.State.State != "purged" && (host == "" || host == one.HostID) {
			return &one, nil
		}
		if err != nil && !errors.Is(err, ErrNotFound) {
			return nil, err
		}
	}
	query := url.Values{}
	if host != "" {
		query.Set("hostId", host)
	}
	list, err := c.Containers(ctx, query)
	if err != nil {
		return nil, err
	}
	if host != "" {
		list = slices.DeleteFunc(list, func(c Container) bool { return c.HostID != host })
	}
	of := func(c *Container) names { return names{id: c.ID, name: c.Name, long: []string{c.ExternalID}} }
	var hosts map[string]string // only asked for where several are meant
	return pick("container", ref, list, of, func(one *Container) string {
		if hosts == nil {
			hosts = c.hostNames(ctx)
		}
		where := one.HostID
		if name := hosts[where]; name != "" {
			where = name
		}
		return fmt.Sprintf("%s  %s/%s (%s)", one.ID, where, one.Name, one.State.State)
	})
}

// hostNames returns the names of hosts by their ids, as far as the server tells.
func (c *Client) hostNames(ctx context.Context) map[string]string {
	known := map[string]string{}
	hosts, _ := c.Hosts(ctx) // ids do as well
	for i := range hosts {
		known[hosts[i].ID] = hosts[i].DisplayName()
	}
	return known
}

// SplitRef takes HOST/CONTAINER apart; host is "" where ref names none. A slash in front means nothing, as with docker.
func SplitRef(ref string) (host, container string) {
	if i := strings.LastIndexByte(ref, '/'); i > 0 {
		return ref[:i], ref[i+1:]
	}
	return "", strings.TrimPrefix(ref, "/")
}

// qualified resolves the host of a HOST/CONTAINER.
func (c *Client) qualified(ctx context.Context, ref, host string) (container, hostID string, err error) {
	named, container := SplitRef(ref)
	if named == "" {
		return container, host, nil
	}
	h, err := c.Host(ctx, named)
	switch {
	case err != nil:
		return "", "", err
	case host != "" && host != h.ID:
		return "", "", fmt.Errorf("%q is on host %s, and another host was asked for", ref, h.DisplayName())
	}
	return container, h.ID, nil
}

// A Place is a container and its host.
type Place struct {
	Host      *Host
	Ref       string     // what the host calls the container: the engine's id, or what the user called it
	Container *Container // nil if the server has not heard of it
}

// Name is what people call the place.
func (p *Place) Name() string {
	if p.Container != nil && p.Container.Name != "" {
		return p.Container.Name
	}
	return p.Ref
}

// Place finds a container as [Client.Container] does, and its host. Where the host is given, the container may be one
// that the server has not heard of yet: the host knows.
func (c *Client) Place(ctx context.Context, ref, host string) (*Place, error) {
	name, hostID, err := c.qualified(ctx, ref, host)
	if err != nil {
		return nil, err
	}
	found, err := c.Container(ctx, name, hostID)
	if err != nil && (hostID == "" || !errors.Is(err, ErrNotFound)) {
		return nil, err
	}
	p := &Place{Host: &Host{}, Ref: name, Container: found}
	if found != nil {
		if hostID, p.Ref = found.HostID, found.ExternalID; p.Ref == "" {
			return nil, fmt.Errorf("container %s has not been created on its host yet: it is %s", found.Name, found.State.State)
		}
	}
	if err := c.Do(ctx, http.MethodGet, "hosts/"+url.PathEscape(hostID), nil, p.Host); err != nil {
		return nil, err
	}
	return p, nil
}

// Host finds the one host that ref means: its id, its name or hostname, its uuid, or a prefix of that which no other
// host has.
func (c *Client) Host(ctx context.Context, ref string) (*Host, error) {
	hosts, err := c.Hosts(ctx)
	if err != nil {
		return nil, err
	}
	of := func(h *Host) names {
		return names{id: h.ID, name: h.DisplayName(), other: h.Hostname, long: []string{h.UUID}}
	}
	return pick("host", ref, hosts, of, func(h *Host) string {
		text := h.ID + "  " + h.DisplayName()
		if h.AgentIP != "" {
			text += " (" + h.AgentIP + ")"
		}
		return text
	})
}

// names is what a thing answers to.
type names struct {
	id    string
	name  string
	other string   // a second name
	long  []string // ids of which a prefix is enough
}

// minPrefix is the least of a long id that counts as a prefix.
const minPrefix = 2

// pick returns the element that ref means. An exact id wins over an exact name, that over a prefix. tell words one of
// several that are meant.
func pick[T any](kind, ref string, list []T, of func(*T) names, tell func(*T) string) (*T, error) {
	if ref == "" {
		return nil, fmt.Errorf("an empty name is no %s", kind)
	}
	rules := []func(names) bool{
		func(n names) bool { return n.id == ref || slices.Contains(n.long, ref) },
		func(n names) bool { return n.name == ref },
		func(n names) bool { return n.other == ref },
		func(n names) bool {
			return len(ref) >= minPrefix && slices.ContainsFunc(n.long, func(l string) bool {
				return strings.HasPrefix(l, strings.ToLower(ref))
			})
		},
	}
	for _, rule := range rules {
		var found []*T
		for i := range list {
			if rule(of(&list[i])) {
				found = append(found, &list[i])
			}
		}
		switch {
		case len(found) == 1:
			return found[0], nil
		case len(found) > 1:
			return nil, ambiguous(kind, ref, found, tell)
		}
	}
	return nil, unknown(kind, ref, list, of)
}

func ambiguous[T any](kind, ref string, found []*T, tell func(*T) string) error {
	var b strings.Builder
	hint := ""
	if kind == "container" {
		hint = "say HOST/CONTAINER, or "
	}
	fmt.Fprintf(&b, "%q means %d %ss; %suse one of the ids:", ref, len(found), kind, hint)
	for i, f := range found {
		if i == 5 {
			fmt.Fprintf(&b, "\n  and %d more", len(found)-i)
			break
		}
		b.WriteString("\n  " + tell(f))
	}
	return errors.New(b.String())
}

func unknown[T any](kind, ref string, list []T, of func(*T) names) error {
	var near []string
	for i := range list {
		n := of(&list[i])
		if n.name != "" && alike(ref, n.name) {
			near = append(near, n.name)
		}
	}
	slices.Sort(near)
	near = slices.Compact(near)
	err := fmt.Errorf("no %s %q: %w", kind, ref, ErrNotFound)
	switch {
	case len(list) == 0:
		return fmt.Errorf("%w; there are no %ss at all", err, kind)
	case len(near) > 0:
		return fmt.Errorf("%w; did you mean %s?", err, strings.Join(near[:min(len(near), 3)], ", "))
	}
	return err
}

// alike reports whether ref may be a slip of the pen for name.
func alike(ref, name string) bool {
	d := levenshtein.ComputeDistance(ref, name)
	return d == 1 || d <= max(2, len(ref)/3) && ref[0] == name[0] || len(ref) > 2 && strings.Contains(name, ref)
}
