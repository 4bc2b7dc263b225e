package api

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Limits of a page.
const (
	defaultLimit = 100
	maxLimit     = 3000
)

// A resource is one object of an answer, before it is written for a client: links and actions are relative to it.
type resource struct {
	typ     string
	id      string
	fields  map[string]any
	links   []string // names: {prefix}/{plural}/{id}/{name}
	actions []string // names, those that its state allows
}

const dateFormat = "2006-01-02T15:04:05Z"

// render writes a resource for a client: with absolute links, and each date also in milliseconds.
func (q *request) render(res *resource) map[string]any {
	return renderFor(q.h, q.target.prefix(), q.who.kind, res)
}

func renderFor(h *Handler, prefix, kind string, res *resource) map[string]any {
	d := h.types[res.typ]
	self := prefix + "/" + lower(d.plural)
	if res.id != "" {
		self += "/" + url.PathEscape(res.id)
	}
	links, actions := map[string]string{"self": self}, map[string]string{}
	for _, l := range res.links {
		links[l] = self + "/" + lower(l)
	}
	allowed := d.grants[kind].actions
	for _, a := range res.actions {
		if slices.Contains(allowed, a) {
			actions[a] = self + "/?action=" + a
		}
	}
	out := map[string]any{"id": res.id, "type": res.typ, "links": links, "actions": actions, "baseType": cmp.Or(d.base, res.typ)}
	for name, v := range res.fields {
		if t, ok := v.(time.Time); ok {
			out[name], out[name+"TS"] = nil, nil
			if !t.IsZero() {
				out[name], out[name+"TS"] = t.UTC().Format(dateFormat), t.UnixMilli()
			}
			continue
		}
		out[name] = v
	}
	return out
}

// collection is the answer to a list request.
type collection struct {
	Type         string                 `json:"type"`
	ResourceType string                 `json:"resourceType"`
	Links        map[string]string      `json:"links"`
	CreateTypes  map[string]string      `json:"createTypes"`
	Actions      map[string]string      `json:"actions"`
	Data         []map[string]any       `json:"data"`
	SortLinks    map[string]string      `json:"sortLinks"`
	Pagination   *pagination            `json:"pagination"`
	Sort         *sorting               `json:"sort"`
	Filters      map[string][]condition `json:"filters"`
	Defaults     map[string]any         `json:"createDefaults"`
}

type pagination struct {
	First    *string `json:"first"`
	Previous *string `json:"previous"`
	Next     *string `json:"next"`
	Limit    int     `json:"limit"`
	Total    *int    `json:"total"`
	Partial  bool    `json:"partial"`
}

type sorting struct {
	Name    string `json:"name"`
	Order   string `json:"order"`
	Reverse string `json:"reverse"`
}

type condition struct {
	Modifier string `json:"modifier"`
	Value    any    `json:"value"`
}

// writeCollection answers with those of all that the query asks for: filtered, sorted, one page.
func (q *request) writeCollection(s *schema, all []*resource) error {
	query := q.r.URL.Query()
	self := q.target.prefix() + "/" + lower(strings.Join(q.target.segments, "/"))
	c := &collection{
		Type: "collection", ResourceType: s.ID, Links: map[string]string{"self": self}, CreateTypes: map[string]string{},
		Actions: map[string]string{}, SortLinks: map[string]string{}, Filters: map[string][]condition{}, Defaults: map[string]any{},
	}
	if slices.Contains(s.CollectionMethods, "POST") {
		c.CreateTypes[s.ID] = s.Links["collection"]
	}
	filters, err := parseFilters(s, query)
	if err != nil {
		return err
	}
	for name := range s.CollectionFilters {
		c.Filters[name] = filters[name]
		c.SortLinks[name] = self + "?sort=" + url.QueryEscape(name)
	}
	rows := make([]map[string]any, 0, len(all))
	for _, res := range all {
		if row := q.render(res); matches(row, filters) {
			rows = append(rows, row)
		}
	}
	if c.Sort, err = sortRows(s, self, query, rows); err != nil {
		return err
	}
	limit, offset, err := page(query)
	if err != nil {
		return err
	}
	total := len(rows)
	c.Pagination = &pagination{Limit: limit, Total: &total}
	rows = rows[min(offset, total):]
	if len(rows) > limit {
		rows = rows[:limit]
		c.Pagination.Partial = true
		c.Pagination.Next = q.pageLink(self, offset+limit)
	}
	if offset > 0 {
		c.Pagination.First, c.Pagination.Previous = q.pageLink(self, 0), q.pageLink(self, max(0, offset-limit))
		c.Pagination.Partial = true
	}
	c.Data = rows
	writeJSON(q.w, http.StatusOK, c)
	return nil
}

func (q *request) pageLink(self string, offset int) *string {
	query := q.r.URL.Query()
	query.Del("marker")
	if offset > 0 {
		query.Set("marker", "m"+strconv.Itoa(offset))
	}
	link := self
	if len(query) > 0 {
		link += "?" + query.Encode()
	}
	return &link
}

func page(query url.Values) (limit, offset int, err error) {
	limit = defaultLimit
	if text := query.Get("limit"); text != "" {
		if limit, err = strconv.Atoi(text); err != nil {
			return 0, 0, invalid("InvalidFormat", "limit", "limit is %q: want a number", text)
		}
		if limit <= 0 || limit > maxLimit {
			limit = maxLimit
		}
	}
	if text := query.Get("marker"); text != "" {
		digits, ok := strings.CutPrefix(text, "m")
		if offset, err = strconv.Atoi(digits); !ok || err != nil || offset < 0 {
			return 0, 0, invalid("InvalidFormat", "marker", "marker is %q: want m and a number", text)
		}
	}
	return limit, offset, nil
}

// parseFilters reads name=value and name_modifier=value. Names that are no fields are ignored: they may be options.
func parseFilters(s *schema, query url.Values) (map[string][]condition, error) {
	out := map[string][]condition{}
	for key, values := range query {
		name, modifier := key, "eq"
		if _, ok := s.CollectionFilters[name]; !ok {
			i := strings.LastIndexByte(key, '_')
			if i < 0 {
				continue
			}
			name, modifier = key[:i], key[i+1:]
		}
		f, ok := s.CollectionFilters[name]
		if !ok {
			continue
		}
		if !slices.Contains(f.Modifiers, modifier) {
			return nil, invalid("InvalidOption", name, "%s is no filter of %s: want one of %s", modifier, name, strings.Join(f.Modifiers, ", "))
		}
		for _, v := range values {
			out[name] = append(out[name], condition{Modifier: modifier, Value: v})
		}
	}
	return out, nil
}

func matches(row map[string]any, filters map[string][]condition) bool {
	for name, conditions := range filters {
		have := row[name]
		if ts, ok := row[name+"TS"]; ok && ts != nil && !anyText(conditions) {
			have = ts
		}
		for _, c := range conditions {
			if !c.holds(have) {
				return false
			}
		}
	}
	return true
}

// anyText reports whether a condition compares with something that is no number.
func anyText(conditions []condition) bool {
	return slices.ContainsFunc(conditions, func(c condition) bool {
		_, err := strconv.ParseFloat(fmt.Sprint(c.Value), 64)
		return err != nil
	})
}

func (c condition) holds(have any) bool {
	want := fmt.Sprint(c.Value)
	empty := have == nil || have == ""
	switch c.Modifier {
	case "null":
		return empty
	case "notnull":
		return !empty
	case "ne":
		return empty || plain(have) != want
	case "notlike":
		return empty || !like(plain(have), want)
	}
	if empty {
		return want == "" && c.Modifier == "eq"
	}
	text := plain(have)
	switch c.Modifier {
	case "prefix":
		return strings.HasPrefix(text, want)
	case "like":
		return like(text, want)
	case "lt":
		return compare(text, want) < 0
	case "lte":
		return compare(text, want) <= 0
	case "gt":
		return compare(text, want) > 0
	case "gte":
		return compare(text, want) >= 0
	}
	return text == want
}

// like matches SQL's pattern: % stands for any text.
func like(text, pattern string) bool {
	parts := strings.Split(strings.ToLower(pattern), "%")
	text = strings.ToLower(text)
	if len(parts) == 1 {
		return text == parts[0]
	}
	if !strings.HasPrefix(text, parts[0]) {
		return false
	}
	text = text[len(parts[0]):]
	for _, p := range parts[1 : len(parts)-1] {
		i := strings.Index(text, p)
		if i < 0 {
			return false
		}
		text = text[i+len(p):]
	}
	return strings.HasSuffix(text, parts[len(parts)-1])
}

// plain is a value as a filter compares it.
func plain(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case json.RawMessage:
		return string(v)
	}
	return fmt.Sprint(v)
}

// compare orders numbers by size and everything else by its text.
func compare(a, b string) int {
	x, errA := strconv.ParseFloat(a, 64)
	y, errB := strconv.ParseFloat(b, 64)
	if errA == nil && errB == nil {
		return cmp.Compare(x, y)
	}
	return strings.Compare(a, b)
}

// sortRows sorts by the field that the query names; without one the order is that of the ids, in which rows come.
func sortRows(s *schema, self string, query url.Values, rows []map[string]any) (*sorting, error) {
	name := query.Get("sort")
	if name == "" {
		return nil, nil
	}
	if _, ok := s.CollectionFilters[name]; !ok {
		known := slices.Sorted(maps.Keys(s.CollectionFilters))
		return nil, invalid("InvalidOption", "sort", "cannot sort by %q: want one of %s", name, strings.Join(known, ", "))
	}
	order := lower(query.Get("order"))
	if order != "desc" {
		order = "asc"
	}
	slices.SortStableFunc(rows, func(a, b map[string]any) int {
		n := 0
		switch x, y := a[name], b[name]; {
		case x == nil || y == nil:
			n = cmp.Compare(boolInt(x != nil), boolInt(y != nil))
		case name == "id": // 1h2 comes before 1h10
			n = cmp.Or(cmp.Compare(len(plain(x)), len(plain(y))), strings.Compare(plain(x), plain(y)))
		default:
			n = compare(plain(x), plain(y))
		}
		if order == "desc" {
			return -n
		}
		return n
	})
	other := map[string]string{"asc": "desc", "desc": "asc"}[order]
	return &sorting{Name: name, Order: order, Reverse: self + "?sort=" + url.QueryEscape(name) + "&order=" + other}, nil
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func lower(s string) string { return strings.ToLower(s) }
