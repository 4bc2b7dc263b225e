package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Limits of request bodies, in bytes.
const (
	maxBody      = 1 << 20
	maxEventBody = 8 << 20  // containerEvent, with an inspect inside
	maxReplyBody = 32 << 20 // publish
)

// bodyTimeout bounds how long a body may take to arrive.
const bodyTimeout = time.Minute

// An input is a request's JSON object. Numbers in it are json.Number.
type input map[string]any

// readBody returns the whole body, which is at most limit bytes.
func readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	// A connection without deadlines, as tests have, is no reason to refuse.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
	defer func() { _ = http.NewResponseController(w).SetReadDeadline(time.Time{}) }()
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err == nil {
		return body, nil
	}
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return nil, err
	}
	return nil, fail(http.StatusBadRequest, "InvalidBodyContent", "the body did not arrive: %v", err)
}

// readInput reads a JSON object from the body; an empty body is an empty object.
func readInput(w http.ResponseWriter, r *http.Request) (input, error) {
	body, err := readBody(w, r, maxBody)
	if err != nil {
		return nil, err
	}
	return parseInput(body)
}

func parseInput(body []byte) (input, error) {
	body = bytes.TrimSpace(body)
	if len(body) == 0 {
		return input{}, nil
	}
	bad := func(format string, args ...any) error {
		return fail(http.StatusBadRequest, "InvalidBodyContent", format, args...)
	}
	if body[0] == '<' {
		return nil, bad("the body is HTML or XML, want a JSON object")
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, bad("the body is no JSON: %v", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, bad("something follows the JSON object in the body")
	}
	obj, ok := v.(map[string]any)
	if !ok {
		return nil, bad("the body is JSON, but no object")
	}
	return obj, nil
}

// accept checks the fields of in against a type and returns those that may be set, converted to their types. Fields
// that are unknown, null or set by the server alone are ignored, as Rancher does.
func (h *Handler) accept(d *typeDef, in input, update bool) (map[string]any, error) {
	out := map[string]any{}
	for name, v := range in {
		f, ok := d.fields[name]
		if !ok || v == nil || update && !f.Update || !update && !f.Create {
			continue
		}
		c, err := h.convert(f.Type, name, v)
		if err != nil {
			return nil, err
		}
		if s, isText := c.(string); isText && len(f.Options) > 0 && !slices.Contains(f.Options, s) {
			return nil, invalid("InvalidOption", name, "%s is %q: want one of %s", name, s, strings.Join(f.Options, ", "))
		}
		out[name] = c
	}
	if update {
		return out, nil
	}
	for name, f := range d.fields {
		if v, ok := out[name]; f.Required && (!ok || v == "") {
			return nil, invalid("MissingRequired", name, "%s is missing", name)
		}
	}
	return out, nil
}

// convert checks that v is of a field type. Scalars are converted where nothing is lost: 5 to "5", "5" to 5.
func (h *Handler) convert(typ, path string, v any) (any, error) {
	if inner, ok := inside(typ, "array"); ok {
		list, ok := v.([]any)
		if !ok {
			return nil, wrongType(path, "a list", v)
		}
		out := make([]any, len(list))
		for i, e := range list {
			var err error
			if out[i], err = h.convert(inner, fmt.Sprintf("%s[%d]", path, i), e); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	if inner, ok := inside(typ, "map"); ok {
		m, ok := v.(map[string]any)
		if !ok {
			return nil, wrongType(path, "an object", v)
		}
		if inner == "" {
			inner = "string"
		}
		out := make(map[string]any, len(m))
		for k, e := range m {
			var err error
			if out[k], err = h.convert(inner, path+"."+k, e); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	switch typ {
	case "json":
		return v, nil
	case "int":
		return toInt(path, v)
	case "boolean":
		return toBool(path, v)
	}
	if d, ok := h.types[typ]; ok {
		m, ok := v.(map[string]any)
		if !ok {
			return nil, wrongType(path, "an object", v)
		}
		return h.accept(d, m, false)
	}
	return toText(path, v)
}

// inside returns x of "outer[x]".
func inside(typ, outer string) (string, bool) {
	rest, ok := strings.CutPrefix(typ, outer+"[")
	return strings.TrimSuffix(rest, "]"), ok
}

func wrongType(path, want string, v any) error {
	root, _, _ := strings.Cut(path, ".")
	root, _, _ = strings.Cut(root, "[")
	return invalid("InvalidFormat", root, "%s is %s: want %s", path, nameOf(v), want)
}

func nameOf(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "a boolean"
	case json.Number:
		return "a number"
	case string:
		return "a string"
	case []any:
		return "a list"
	}
	return "an object"
}

func toText(path string, v any) (any, error) {
	switch v := v.(type) {
	case string:
		if strings.ContainsRune(v, 0) {
			return nil, invalid("InvalidCharacters", path, "%s holds a zero byte", path)
		}
		return v, nil
	case json.Number:
		return v.String(), nil
	case bool:
		return strconv.FormatBool(v), nil
	}
	return nil, wrongType(path, "a string", v)
}

func toInt(path string, v any) (any, error) {
	text := ""
	switch v := v.(type) {
	case json.Number:
		text = v.String()
	case string:
		text = strings.TrimSpace(v)
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return n, nil
	}
	const exact = 1 << 53
	if f, err := strconv.ParseFloat(text, 64); err == nil && f == float64(int64(f)) && f > -exact && f < exact {
		return int64(f), nil
	}
	return nil, wrongType(path, "a whole number", v)
}

func toBool(path string, v any) (any, error) {
	switch v := v.(type) {
	case bool:
		return v, nil
	case string:
		if b, err := strconv.ParseBool(strings.ToLower(v)); err == nil {
			return b, nil
		}
	}
	return nil, wrongType(path, "true or false", v)
}
