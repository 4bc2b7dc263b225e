package api

import (
	"encoding/json"
	"fmt"
)

// Values that are empty are null in answers, as Rancher's are.

func orNil(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func orNilInt(n int64) any {
	if n == 0 {
		return nil
	}
	return n
}

func orNilJSON(raw json.RawMessage) any {
	if len(raw) == 0 {
		return nil
	}
	return raw
}

func orEmptyMap(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

func orEmptyList(l []string) []string {
	if l == nil {
		return []string{}
	}
	return l
}

// text is a field that was accepted as a string, or "".
func text(v any) string {
	s, _ := v.(string)
	return s
}

// textMap is a field that was accepted as map[string].
func textMap(v any) map[string]string {
	m, _ := v.(map[string]any)
	out := make(map[string]string, len(m))
	for k, e := range m {
		out[k] = fmt.Sprint(e)
	}
	return out
}

// textList is a field that was accepted as array[string] or array[reference].
func textList(v any) []string {
	l, _ := v.([]any)
	out := make([]string, len(l))
	for i, e := range l {
		out[i] = fmt.Sprint(e)
	}
	return out
}

// seconds is a field that was accepted as int, or nil where it is absent.
func seconds(v any) (*int, error) {
	n, ok := v.(int64)
	if !ok {
		return nil, nil
	}
	const most = 24 * 60 * 60
	if n < 0 || n > most {
		return nil, invalid("MaxLimitExceeded", "timeout", "timeout is %d seconds: want 0 to %d", n, most)
	}
	s := int(n)
	return &s, nil
}
