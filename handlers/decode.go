package handlers

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/runtime"
)

// A fieldError says which field of an event is wrong. It never holds the field's value, which may be a secret.
type fieldError struct {
	path, problem string
}

func (e *fieldError) Error() string { return e.path + ": " + e.problem }

// Unwrap makes it an ErrInvalid.
func (e *fieldError) Unwrap() error { return runtime.ErrInvalid }

func invalid(path, format string, args ...any) error {
	if path == "" {
		path = "data"
	}
	return &fieldError{path: path, problem: fmt.Sprintf(format, args...)}
}

// A treeDecoder is a type that reads itself from a decoded value: nil, bool, json.Number, string, []any or
// map[string]any.
type treeDecoder interface {
	decodeTree(path string, v any) error
}

// decodeEvent reads an event's data into the struct that dst points to, by the json tags of its fields. Keys match in
// any case, the exact one first; unknown ones are ignored; null and a missing key leave the zero value. Numbers are
// also taken from strings, strings from numbers and booleans, booleans from "true", "false", 1 and 0. Anything else is
// an error that names the field; the tag path:"hidden" keeps a field out of that name.
func decodeEvent(ev *wire.Event, dst any) error {
	if len(ev.Data) == 0 {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(ev.Data))
	d.UseNumber()
	var tree any
	if err := d.Decode(&tree); err != nil {
		return invalid("data", "not JSON")
	}
	return decodeValue("", tree, reflect.ValueOf(dst).Elem())
}

// decodeInto reads one value.
func decodeInto(path string, v, dst any) error {
	return decodeValue(path, v, reflect.ValueOf(dst).Elem())
}

func decodeValue(path string, v any, dst reflect.Value) error {
	if t, ok := dst.Addr().Interface().(treeDecoder); ok {
		return t.decodeTree(path, v)
	}
	if v == nil {
		return nil
	}
	switch dst.Kind() {
	case reflect.Pointer:
		p := reflect.New(dst.Type().Elem())
		if err := decodeValue(path, v, p.Elem()); err != nil {
			return err
		}
		dst.Set(p)
	case reflect.Struct:
		return decodeStruct(path, v, dst)
	case reflect.Slice:
		return decodeSlice(path, v, dst)
	case reflect.Map:
		return decodeMap(path, v, dst)
	case reflect.String:
		return decodeString(path, v, dst)
	case reflect.Bool:
		return decodeBool(path, v, dst)
	case reflect.Int, reflect.Int64, reflect.Int32, reflect.Uint16, reflect.Uint64:
		return decodeInteger(path, v, dst)
	default:
		return fmt.Errorf("handlers: no decoder for %s at %s", dst.Type(), path)
	}
	return nil
}

func decodeStruct(path string, v any, dst reflect.Value) error {
	object, ok := v.(map[string]any)
	if !ok {
		return mismatch(path, "an object", v)
	}
	var folded map[string]any
	for i := range dst.NumField() {
		tag := dst.Type().Field(i).Tag
		name := tag.Get("json")
		value, ok := object[name]
		if !ok {
			if folded == nil {
				folded = make(map[string]any, len(object))
				for key, value := range object {
					folded[strings.ToLower(key)] = value
				}
			}
			if value, ok = folded[strings.ToLower(name)]; !ok {
				continue
			}
		}
		at := path
		if tag.Get("path") != "hidden" {
			at = join(path, name)
		} else if _, isObject := value.(map[string]any); value != nil && !isObject {
			at = name // only its own type can be wrong, and that needs a name
		}
		if err := decodeValue(at, value, dst.Field(i)); err != nil {
			return err
		}
	}
	return nil
}

func decodeSlice(path string, v any, dst reflect.Value) error {
	list, ok := v.([]any)
	if !ok {
		return mismatch(path, "an array", v)
	}
	s := reflect.MakeSlice(dst.Type(), len(list), len(list))
	for i, e := range list {
		if err := decodeValue(path+"["+strconv.Itoa(i)+"]", e, s.Index(i)); err != nil {
			return err
		}
	}
	dst.Set(s)
	return nil
}

func decodeMap(path string, v any, dst reflect.Value) error {
	object, ok := v.(map[string]any)
	if !ok {
		return mismatch(path, "an object", v)
	}
	m := reflect.MakeMapWithSize(dst.Type(), len(object))
	for key, value := range object {
		e := reflect.New(dst.Type().Elem()).Elem()
		if err := decodeValue(join(path, key), value, e); err != nil {
			return err
		}
		m.SetMapIndex(reflect.ValueOf(key), e)
	}
	dst.Set(m)
	return nil
}

func decodeString(path string, v any, dst reflect.Value) error {
	switch v := v.(type) {
	case string:
		dst.SetString(v)
	case json.Number:
		dst.SetString(v.String())
	case bool:
		dst.SetString(strconv.FormatBool(v))
	default:
		return mismatch(path, "a string", v)
	}
	return nil
}

func decodeBool(path string, v any, dst reflect.Value) error {
	switch v := v.(type) {
	case bool:
		dst.SetBool(v)
		return nil
	case string:
		switch strings.ToLower(v) {
		case "true":
			dst.SetBool(true)
			return nil
		case "false", "":
			return nil
		}
	case json.Number:
		switch v {
		case "1":
			dst.SetBool(true)
			return nil
		case "0":
			return nil
		}
	}
	return mismatch(path, "true or false", v)
}

// decodeInteger cuts fractions off, as Rancher's agent did.
func decodeInteger(path string, v any, dst reflect.Value) error {
	var text string
	switch v := v.(type) {
	case json.Number:
		text = v.String()
	case string:
		if text = strings.TrimSpace(v); text == "" {
			return nil
		}
	default:
		return mismatch(path, "a number", v)
	}
	if dst.CanInt() {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			f, ok := fraction(text, v)
			switch {
			case !ok:
				return mismatch(path, "a number", v)
			case f < math.MinInt64 || f >= math.MaxInt64:
				return invalid(path, "number out of range")
			}
			n = int64(f)
		}
		if dst.OverflowInt(n) {
			return invalid(path, "number out of range")
		}
		dst.SetInt(n)
		return nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		f, ok := fraction(text, v)
		switch {
		case !ok:
			return mismatch(path, "a number", v)
		case f <= -1 || f >= math.MaxUint64:
			return invalid(path, "number out of range")
		}
		n = uint64(max(0, f))
	}
	if dst.OverflowUint(n) {
		return invalid(path, "number out of range")
	}
	dst.SetUint(n)
	return nil
}

// fraction reads a number that is no plain integer of 64 bits. What is too large for a float64 is infinite; a string
// that is no decimal number is none.
func fraction(text string, v any) (float64, bool) {
	if _, isString := v.(string); isString && strings.ContainsFunc(text, func(r rune) bool { return !strings.ContainsRune("0123456789+-.eE", r) }) {
		return 0, false
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil && !math.IsInf(f, 0) {
		return 0, false
	}
	return f, true
}

func mismatch(path, expected string, v any) error {
	return invalid(path, "expected %s, got %s", expected, typeName(v))
}

func typeName(v any) string {
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
		return "an array"
	default:
		return "an object"
	}
}

// join makes a path; a key of the sender's choice is cut to a bearable length.
func join(path, key string) string {
	if len(key) > 80 {
		key = strings.ToValidUTF8(key[:80], "") + "..."
	}
	switch path {
	case "":
		return key
	default:
		return path + "." + key
	}
}
