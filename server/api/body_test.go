package api

import (
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"strings"
	"testing"
)

// typesOnly is a handler that knows the types and nothing else.
func typesOnly() *Handler {
	h := &Handler{types: map[string]*typeDef{}, names: map[string]string{}}
	for _, d := range typeDefs() {
		h.types[d.id] = d
		h.names[lower(d.plural)] = d.id
	}
	return h
}

func TestParseInput(t *testing.T) {
	for body, ok := range map[string]bool{
		``: true, ` `: true, `{}`: true, ` {"a":1} ` + "\n": true, `{"a":{"b":[1,"x",null]}}`: true,
		`<html><body>502</body></html>`: false, `[]`: false, `"x"`: false, `5`: false, `null`: false, `{`: false, `{"a":1}{}`: false, `{"a":1} x`: false,
		`a=b&c=d`: false, "\x00\x01": false, `{"a":` + strings.Repeat("[", 20000): false,
	} {
		_, err := parseInput([]byte(body))
		var e *apiError
		if (err == nil) != ok || err != nil && (!errors.As(err, &e) || e.Status != http.StatusBadRequest || e.Code != "InvalidBodyContent") {
			t.Errorf("%.40q: %v", body, err)
		}
	}
}

func TestAcceptConverts(t *testing.T) {
	h := typesOnly()
	in, err := parseInput([]byte(`{"imageUuid":"docker:a","memory":"1024","cpuShares":5.0,"tty":"true","privileged":false,
		"labels":{"n":5,"b":true,"s":"x"},"command":["sleep",60],"restartPolicy":{"name":"always","maximumRetryCount":"3","x":1},
		"ulimits":[{"name":"nofile","hard":10}],"blkioDeviceOptions":{"/dev/sda":{"weight":5}},"networkMode":null,
		"links":null,"actions":null,"id":"1i9","unknown":[{}],"state":"running","externalId":"x"}`))
	if err != nil {
		t.Fatal(err)
	}
	got, err := h.accept(h.types["container"], in, false)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"imageUuid": "docker:a", "memory": int64(1024), "cpuShares": int64(5), "tty": true, "privileged": false,
		"labels": map[string]any{"n": "5", "b": "true", "s": "x"}, "command": []any{"sleep", "60"},
		"restartPolicy":      map[string]any{"name": "always", "maximumRetryCount": int64(3)},
		"ulimits":            []any{map[string]any{"name": "nofile", "hard": int64(10)}},
		"blkioDeviceOptions": map[string]any{"/dev/sda": map[string]any{"weight": int64(5)}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestAcceptNamesTheField(t *testing.T) {
	h := typesOnly()
	for body, want := range map[string]string{
		`{}`:                                              "imageUuid MissingRequired",
		`{"imageUuid":""}`:                                "imageUuid MissingRequired",
		`{"imageUuid":["a"]}`:                             "imageUuid InvalidFormat",
		`{"imageUuid":"a","memory":"much"}`:               "memory InvalidFormat",
		`{"imageUuid":"a","memory":1.5}`:                  "memory InvalidFormat",
		`{"imageUuid":"a","memory":1e300}`:                "memory InvalidFormat",
		`{"imageUuid":"a","memory":99999999999999999999}`: "memory InvalidFormat",
		`{"imageUuid":"a","memory":true}`:                 "memory InvalidFormat",
		`{"imageUuid":"a","tty":"perhaps"}`:               "tty InvalidFormat",
		`{"imageUuid":"a","tty":1}`:                       "tty InvalidFormat",
		`{"imageUuid":"a","command":"sleep 60"}`:          "command InvalidFormat",
		`{"imageUuid":"a","command":{"0":"x"}}`:           "command InvalidFormat",
		`{"imageUuid":"a","command":[["x"]]}`:             "command InvalidFormat",
		`{"imageUuid":"a","labels":["a"]}`:                "labels InvalidFormat",
		`{"imageUuid":"a","labels":{"a":{}}}`:             "labels InvalidFormat",
		`{"imageUuid":"a","labels":{"a":null}}`:           "labels InvalidFormat",
		`{"imageUuid":"a","restartPolicy":"x"}`:           "restartPolicy InvalidFormat",
		`{"imageUuid":"a","ulimits":[5]}`:                 "ulimits InvalidFormat",
		`{"imageUuid":"a","pull":"sometimes"}`:            "pull InvalidOption",
		"{\"imageUuid\":\"a\\u0000b\"}":                   "imageUuid InvalidCharacters",
	} {
		in, err := parseInput([]byte(body))
		if err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		_, err = h.accept(h.types["container"], in, false)
		var e *apiError
		if !errors.As(err, &e) || e.Field+" "+e.Code != want || e.Status != http.StatusUnprocessableEntity {
			t.Errorf("%s: %+v, want %s", body, err, want)
		}
	}
}

// Every type of every field exists, so that no body can run into a hole.
func TestTypesAreComplete(t *testing.T) {
	h := typesOnly()
	basic := map[string]bool{"string": true, "password": true, "int": true, "boolean": true, "date": true, "enum": true, "json": true}
	var check func(where, typ string)
	check = func(where, typ string) {
		for _, outer := range []string{"array", "map", "reference"} {
			if inner, ok := inside(typ, outer); ok {
				if inner != "" {
					check(where, inner)
				}
				return
			}
		}
		if !basic[typ] && h.types[typ] == nil {
			t.Errorf("%s is of the unknown type %q", where, typ)
		}
	}
	for id, d := range h.types {
		for name, f := range d.fields {
			check(id+"."+name, f.Type)
		}
		for name, a := range d.actions {
			for _, io := range []string{a.Input, a.Output} {
				if io != "" && h.types[io] == nil {
					t.Errorf("action %s of %s uses the unknown type %s", name, id, io)
				}
			}
		}
		for kind, g := range d.grants {
			for _, a := range g.actions {
				if _, ok := d.actions[a]; !ok {
					t.Errorf("%s grants the unknown action %s of %s", kind, a, id)
				}
			}
		}
	}
}

func FuzzBody(f *testing.F) {
	f.Add([]byte(`{"imageUuid":"a","labels":{"a":5},"ulimits":[{"hard":1}]}`))
	f.Add([]byte(`<html>`))
	f.Fuzz(func(t *testing.T, body []byte) {
		h := typesOnly()
		in, err := parseInput(body)
		if err != nil {
			return
		}
		for _, d := range h.types {
			fields, err := h.accept(d, in, false)
			if err != nil {
				var e *apiError
				if !errors.As(err, &e) || e.Status != http.StatusUnprocessableEntity {
					t.Fatalf("%s: %v", d.id, err)
				}
				continue
			}
			if _, err := json.Marshal(fields); err != nil {
				t.Fatalf("%s accepts what is no JSON: %v", d.id, err)
			}
		}
	})
}
