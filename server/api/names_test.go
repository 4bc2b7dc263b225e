package api

import (
	"regexp"
	"strings"
	"testing"
)

// FuzzNames compares each check with the pattern that says the same.
func FuzzNames(f *testing.F) {
	checks := []struct {
		name    string
		pattern *regexp.Regexp
		check   func(string) bool
	}{
		{"id", regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z._-]{0,127}$`), isID},
		{"token", regexp.MustCompile(`^[0-9A-Za-z]{1,64}:[0-9]{1,20}:[0-9A-Za-z_-]{1,128}$`), isToken},
		{"event name", regexp.MustCompile(`^[*._0-9a-zA-Z;=-]{1,200}$`), isEventName},
		{"version", regexp.MustCompile(`^[vV][0-9]`), isVersion},
		{"host", regexp.MustCompile(`^([A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?|\[[0-9A-Fa-f:.]{1,255}\])(:[0-9]{1,5})?$`), isHost},
	}
	for _, seed := range []string{
		"", "1h1", ".", "-a", "a.b", "a..b", "a b", "a\n", "ä", strings.Repeat("a", 128), strings.Repeat("a", 129),
		"AB12:1703980800000:qffK-_", "AB:12", "AB:12:", ":1:a", "AB:1:a:b", "AB:x:a", strings.Repeat("a", 65) + ":1:a",
		"compute.instance.*;agent=1", "v1", "V2-beta", "v", "vx", "x1",
		"localhost", "localhost:8443", "localhost:", "localhost:123456", "h.", "h..", ".h", "h.:1", ":80", "[::1]", "[::1]:80",
		"[]", "[::1", "::1", "[::1]x", "[x]", "192.0.2.1:1", "a:b:1", "$(id)", "a]:1", "[a]:1:2", "]", "[", "[]]", "a[::1]",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if len(s) > 255 {
			return // longer hosts are refused before they are looked at
		}
		for _, c := range checks {
			if got, want := c.check(s), c.pattern.MatchString(s); got != want {
				t.Errorf("%s: %q is said to be %t, want %t", c.name, s, got, want)
			}
		}
	})
}
