package register

import (
	"bytes"
	"encoding/json"
	"net/url"
	"path"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// oneLine makes foreign text fit for an error: control characters and runs of space become one space.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(strings.ToValidUTF8(s, "?"), func(r rune) bool {
		return unicode.IsSpace(r) || !unicode.IsPrint(r)
	}), " ")
}

// cut makes foreign text one line of at most n bytes.
func cut(s string, n int) string {
	s = oneLine(s)
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "..."
}

// title returns ` "the title"` of a web page, or nothing.
func title(page []byte) string {
	m := regexp.MustCompile(`(?is)<title[^>]*>(.*?)</title>`).FindSubmatch(page[:min(len(page), 16<<10)])
	if m == nil {
		return ""
	}
	return ` "` + cut(string(m[1]), 80) + `"`
}

// said returns what an error answer says: the message of a Rancher error, the title of a page or the text itself, cut.
func said(body []byte) string {
	body = bytes.TrimSpace(body)
	var e struct{ Code, Message, Detail string }
	if json.Unmarshal(body, &e) == nil && (e.Code != "" || e.Message != "" || e.Detail != "") {
		parts := []string{e.Code}
		for _, p := range []string{e.Message, e.Detail} {
			if p != "" && p != e.Code {
				parts = append(parts, p)
			}
		}
		return cut(strings.Trim(strings.Join(parts, ": "), ": "), 200)
	}
	if len(body) > 0 && body[0] == '<' {
		return "a web page" + title(body)
	}
	return cut(string(body), 120)
}

// MaskURL returns a registration URL without its token, for people and logs.
func MaskURL(text string) string {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		return "[not a URL]"
	}
	shown := url.URL{Scheme: u.Scheme, Host: u.Host, Path: path.Dir("/" + strings.Trim(u.Path, "/"))}
	return strings.TrimRight(shown.String(), "/") + "/..."
}
