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

var containerID = regexp.MustCompile(`^1i[0-9]+$`)

// Container finds the one container that ref means: its id, its name, the engine's id, or a prefix of that which no
// other container has. host narrows the search unless it is empty.
func (c *Client) Container(ctx context.Context, ref, host string) (*Container, error) {
	if containerID.MatchString(ref) {
		var one Container
		err := c.Do(ctx, http.MethodGet, "containers/"+ref, nil, &one)
		if err == nil && one.State.State != "removed" && one.State.State != "purged" {
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
	return pick("container", ref, list, func(c *Container) names {
		return names{id: c.ID, name: c.Name, long: []string{c.ExternalID}, where: c.HostID}
	})
}

// Host finds the one host that ref means: its id, its name or hostname, its uuid, or a prefix of that which no other
// host has.
func (c *Client) Host(ctx context.Context, ref string) (*Host, error) {
	hosts, err := c.Hosts(ctx)
	if err != nil {
		return nil, err
	}
	return pick("host", ref, hosts, func(h *Host) names {
		return names{id: h.ID, name: h.DisplayName(), other: h.Hostname, long: []string{h.UUID}, where: h.AgentIP}
	})
}

// names is what a thing answers to.
type names struct {
	id    string
	name  string
	other string   // a second name
	long  []string // ids of which a prefix is enough
	where string   // tells things of one name apart
}

// minPrefix is the least of a long id that counts as a prefix.
const minPrefix = 2

// pick returns the element that ref means. An exact id wins over an exact name, that over a prefix.
func pick[T any](kind, ref string, list []T, of func(*T) names) (*T, error) {
	ref = strings.TrimPrefix(ref, "/")
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
			return nil, ambiguous(kind, ref, found, of)
		}
	}
	return nil, unknown(kind, ref, list, of)
}

func ambiguous[T any](kind, ref string, found []*T, of func(*T) names) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%q means %d %ss; use one of the ids:", ref, len(found), kind)
	for i, f := range found {
		if i == 5 {
			fmt.Fprintf(&b, "\n  and %d more", len(found)-i)
			break
		}
		n := of(f)
		fmt.Fprintf(&b, "\n  %s  %s", n.id, n.name)
		if n.where != "" {
			fmt.Fprintf(&b, " (%s)", n.where)
		}
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
	d := distance(ref, name)
	return d == 1 || d <= max(2, len(ref)/3) && ref[0] == name[0] || len(ref) > 2 && strings.Contains(name, ref)
}

// distance is the number of insertions, deletions and replacements between a and b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diagonal
			if a[i-1] != b[j-1] {
				cost++
			}
			diagonal = row[j]
			row[j] = min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}
