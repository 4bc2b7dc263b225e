package api

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

// listing answers a list request over three hosts.
func listing(t *testing.T, query string) (map[string]any, *apiError) {
	t.Helper()
	h := typesOnly()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var all []*resource
	for i, name := range []string{"beta", "alpha", ""} {
		all = append(all, &resource{typ: "host", id: "1h" + string(rune('1'+i)), links: []string{"instances"}, actions: []string{"remove", "event"}, fields: map[string]any{
			"name": orNil(name), "memory": int64(100 * (i + 1)), "state": "active", "created": at.Add(time.Duration(i) * time.Hour),
		}})
	}
	rec := httptest.NewRecorder()
	q := &request{
		h: h, w: &recorder{ResponseWriter: rec}, r: httptest.NewRequest(http.MethodGet, "http://s/v1/hosts?"+query, nil),
		target: &target{base: "http://s", version: v1, segments: []string{"hosts"}}, who: &identity{kind: kindUser},
	}
	s, _ := q.schema("host")
	if err := q.writeCollection(&s, all); err != nil {
		return nil, asAPIError(err)
	}
	var body map[string]any
	if err := json.Unmarshal(rec.Body.Bytes(), &body); err != nil {
		t.Fatal(err)
	}
	return body, nil
}

func idsOf(body map[string]any) string {
	var ids []string
	for _, d := range body["data"].([]any) {
		ids = append(ids, d.(map[string]any)["id"].(string))
	}
	return strings.Join(ids, " ")
}

func TestCollectionQueries(t *testing.T) {
	for query, want := range map[string]string{
		"":                               "1h1 1h2 1h3",
		"name=alpha":                     "1h2",
		"name_eq=alpha":                  "1h2",
		"name_ne=alpha":                  "1h1 1h3",
		"name_prefix=al":                 "1h2",
		"name_like=%25et%25":             "1h1",
		"name_notlike=%25et%25":          "1h2 1h3",
		"name_null=":                     "1h3",
		"name_notnull=":                  "1h1 1h2",
		"name=alpha&name=beta":           "",
		"memory_gt=100":                  "1h2 1h3",
		"memory_gte=100&memory_lt=300":   "1h1 1h2",
		"memory_lte=100":                 "1h1",
		"created_gt=1767323045000":       "1h2 1h3",
		"created=2026-01-02T03:04:05Z":   "1h1",
		"unknown=5":                      "1h1 1h2 1h3",
		"unknown_eq=5&all=true":          "1h1 1h2 1h3",
		"sort=name":                      "1h3 1h2 1h1",
		"sort=memory&order=desc":         "1h3 1h2 1h1",
		"sort=memory&order=DESC&limit=1": "1h3",
		"sort=id&order=desc":             "1h3 1h2 1h1",
		"limit=2":                        "1h1 1h2",
		"limit=2&marker=m2":              "1h3",
		"limit=-1":                       "1h1 1h2 1h3",
		"marker=m99":                     "",
	} {
		body, err := listing(t, query)
		if err != nil {
			t.Errorf("%s: %v", query, err)
			continue
		}
		if got := idsOf(body); got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
	for query, field := range map[string]string{
		"limit=x": "limit", "marker=2": "marker", "marker=m-1": "marker", "marker=mx": "marker", "sort=unknown": "sort", "name_gt=a": "name", "memory_like=1": "memory",
	} {
		if _, err := listing(t, query); err == nil || err.Field != field || err.Status != http.StatusUnprocessableEntity {
			t.Errorf("%s: %v", query, err)
		}
	}
}

func TestCollectionForm(t *testing.T) {
	body, err := listing(t, "limit=2&state=active")
	if err != nil {
		t.Fatal(err)
	}
	page := body["pagination"].(map[string]any)
	next, _ := page["next"].(string)
	u, perr := url.Parse(next)
	if perr != nil || u.Query().Get("marker") != "m2" || u.Query().Get("state") != "active" || page["partial"] != true || page["limit"] != 2.0 || page["previous"] != nil {
		t.Errorf("pagination %v", page)
	}
	first := body["data"].([]any)[0].(map[string]any)
	if first["created"] != "2026-01-02T03:04:05Z" || first["createdTS"] != 1767323045000.0 || first["type"] != "host" || first["baseType"] != "host" {
		t.Errorf("resource %v", first)
	}
	if links := first["links"].(map[string]any); links["self"] != "http://s/v1/hosts/1h1" || links["instances"] != "http://s/v1/hosts/1h1/instances" {
		t.Errorf("links %v", links)
	}
	actions := first["actions"].(map[string]any)
	if actions["event"] != "http://s/v1/hosts/1h1/?action=event" {
		t.Errorf("actions %v", actions)
	}
	if _, ok := actions["remove"]; ok {
		t.Error("a user is offered what only an admin may do")
	}
	if body["type"] != "collection" || body["resourceType"] != "host" || body["filters"].(map[string]any)["state"].([]any)[0].(map[string]any)["value"] != "active" {
		t.Errorf("collection %v", body)
	}
}

func TestLike(t *testing.T) {
	for _, tc := range []struct {
		text, pattern string
		want          bool
	}{
		{"abc", "abc", true},
		{"ABC", "abc", true},
		{"abc", "a%", true},
		{"abc", "%c", true},
		{"abc", "%b%", true},
		{"abc", "a%c", true},
		{"abc", "", false},
		{"", "%", true},
		{"abc", "%%", true},
		{"ab", "ab%ab", false},
		{"abc", "b%", false},
		{"aXbXc", "a%b%c", true},
	} {
		if got := like(tc.text, tc.pattern); got != tc.want {
			t.Errorf("like(%q, %q) = %v", tc.text, tc.pattern, got)
		}
	}
}

func FuzzFilters(f *testing.F) {
	f.Add("name_like=%25a%25&limit=5&marker=m3&sort=memory&order=desc", "x")
	f.Fuzz(func(t *testing.T, rawQuery, text string) {
		query, err := url.ParseQuery(rawQuery)
		if err != nil {
			return
		}
		s, _ := typesOnly().types["host"].schemaFor(kindAdmin, "http://s/v1")
		filters, err := parseFilters(&s, query)
		if err != nil {
			return
		}
		row := map[string]any{"name": text, "memory": int64(5), "created": nil, "createdTS": nil}
		matches(row, filters)
		if _, err := sortRows(&s, "x", query, []map[string]any{row, {}}); err != nil {
			return
		}
		if limit, offset, err := page(query); err == nil && (limit < 1 || limit > maxLimit || offset < 0) {
			t.Fatalf("%q: limit %d, offset %d", rawQuery, limit, offset)
		}
	})
}
