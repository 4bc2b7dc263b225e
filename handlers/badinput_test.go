package handlers_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/handlers"
	"github.com/droverhq/drover/runtime"
)

// A node is one value inside an event's data.
type node struct {
	path  string // as error texts name it
	value any
	set   func(any)
}

// nodes walks a value and all below it.
func nodes(path string, v any, set func(any)) []node {
	list := []node{{path, v, set}}
	switch v := v.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			at := key
			if path != "" {
				at = path + "." + key
			}
			list = append(list, nodes(at, v[key], func(n any) { v[key] = n })...)
		}
	case []any:
		for i := range v {
			list = append(list, nodes(path+"["+strconv.Itoa(i)+"]", v[i], func(n any) { v[i] = n })...)
		}
	}
	return list
}

// named is how an error names the path: without the map that wraps the resource.
func named(path string) string {
	for _, m := range []string{"instanceHostMap", "imageStoragePoolMap", "volumeStoragePoolMap"} {
		if rest, ok := strings.CutPrefix(path, m+"."); ok {
			return rest
		}
	}
	return path
}

// ignored are the keys that no handler reads.
var ignored = []string{
	"id", "type", "kind", "state", "hostId", "instanceId", "volumeId", "storagePoolId", "storagePool", "host", "imageId",
	"configUrl", "requestedVersion", "setVersion", "apply", "increment", "checkInSyncOnly", "removed", "accountId",
	"allocationState", "created", "startOnCreate", "description", "isPublic", "prepopulate", "networkAddress",
	"networkServices", "ipAddress", "removeTime", "token", "zoneId",
}

func isIgnored(path string) bool {
	for _, key := range strings.Split(path, ".") {
		if slices.Contains(ignored, key) && path != "instanceForceStop.id" && path != "instanceInspect.id" {
			return true
		}
	}
	if strings.Contains(path, "instance.volumes") || strings.Contains(path, "fields.ports") && !strings.Contains(path, "instanceLinks") {
		return true
	}
	return strings.HasSuffix(path, "image.uuid") || strings.HasSuffix(path, "volume.uuid")
}

// wrong returns a value of a type that cannot stand where v stands.
func wrong(path string, v any) any {
	switch v.(type) {
	case map[string]any:
		return "a string"
	case []any:
		if strings.HasSuffix(path, "command") || strings.HasSuffix(path, "entryPoint") || strings.HasSuffix(path, "healthCmd") {
			return 5.0 // a string is fine there
		}
		return "a string"
	default:
		return map[string]any{"x": 1.0}
	}
}

func requests(t *testing.T) []string {
	files, err := filepath.Glob("testdata/*.request.json")
	if err != nil || len(files) < 10 {
		t.Fatal(files, err)
	}
	for i := range files {
		files[i] = strings.TrimSuffix(filepath.Base(files[i]), ".request.json")
	}
	return files
}

func badInputStub() *stub {
	s := newStub()
	s.add(runtime.ContainerStatus{ID: stubID, Name: "other", Image: "nginx:latest"})
	s.add(runtime.ContainerStatus{ID: nativeID, Name: "net-uuid", Image: "nginx:latest", Running: true})
	return s
}

// TestWrongType gives each field of each event a value of a wrong type: the reply is an error that names the field.
func TestWrongType(t *testing.T) {
	for _, name := range requests(t) {
		ev := event(t, name)
		data := tree(t, ev)
		count := 0
		for _, n := range nodes("", data, nil) {
			if n.path == "" || n.value == nil || isIgnored(n.path) {
				continue
			}
			n.set(wrong(n.path, n.value))
			s := badInputStub()
			reply := serve(t, newRouter(s, handlers.Options{}), withData(t, ev, data))
			n.set(n.value)
			want := named(n.path) + ": expected "
			if reply.Transitioning != wire.TransitioningError || reply.Code != wire.CodeInvalid || !strings.HasPrefix(reply.TransitioningMessage, want) {
				t.Errorf("%s: %s of a wrong type: %q %q %q, want an error %q", name, n.path,
					reply.Transitioning, reply.Code, reply.TransitioningMessage, want)
			}
			if changes := s.changes(); len(changes) > 0 {
				t.Errorf("%s: %s of a wrong type: the handler went on to %v", name, n.path, changes)
			}
			count++
		}
		t.Logf("%s: %d fields", name, count)
	}
}

// TestOddValues gives each field of each event null, huge and odd values: no panic, and no error but one of the input.
func TestOddValues(t *testing.T) {
	deep := any("x")
	for range 50 {
		deep = []any{deep}
	}
	values := []any{
		nil, true, "", "x", strings.Repeat("x", 1<<13), json.Number("1e400"), json.Number("-1e400"),
		json.Number("9223372036854775808"), json.Number("-1"), json.Number("0.5"), json.Number("18446744073709551616"),
		[]any{},
		[]any{nil},
		[]any{map[string]any{}},
		map[string]any{},
		map[string]any{"": nil},
		deep, "\x00", "../../etc", "a:b:c:d:e",
	}
	for _, name := range requests(t) {
		if name == "activate" {
			continue // all of its fields are in wide
		}
		ev := event(t, name)
		data := tree(t, ev)
		for _, n := range nodes("", data, nil) {
			if n.path == "" {
				continue
			}
			for _, v := range values {
				n.set(v)
				reply := serve(t, newRouter(badInputStub(), handlers.Options{}), withData(t, ev, data))
				n.set(n.value)
				if reply.Transitioning != wire.TransitioningError {
					continue
				}
				switch reply.Code {
				case wire.CodeInvalid, wire.CodeNotFound:
				case wire.CodeUnavailable: // a driver of volumes that is not there
					if !strings.Contains(reply.TransitioningMessage, "volume driver") {
						t.Errorf("%s: %s = %.40v: %q", name, n.path, fmt.Sprint(v), reply.TransitioningMessage)
					}
				default:
					t.Errorf("%s: %s = %.40v: %q %q", name, n.path, fmt.Sprint(v), reply.Code, reply.TransitioningMessage)
				}
				if len(reply.TransitioningMessage) > 4096 || strings.ContainsAny(reply.TransitioningMessage, "\n\r") {
					t.Errorf("%s: %s = %.40v: the text is no short line: %.100q", name, n.path, fmt.Sprint(v), reply.TransitioningMessage)
				}
			}
		}
	}
}

// TestMissingData sends events without data, and with data that is none.
func TestMissingData(t *testing.T) {
	for _, name := range requests(t) {
		for _, data := range []string{"", "null", "{}", "[]", `"x"`, "5"} {
			ev := *event(t, name)
			ev.Data = json.RawMessage(data)
			reply := serve(t, newRouter(badInputStub(), handlers.Options{}), &ev)
			switch {
			case ev.Name == handlers.EventConfigUpdate && (data == "" || data == "null" || data == "{}"):
				if reply.Transitioning != "" {
					t.Errorf("%s with data %q: %q", name, data, reply.TransitioningMessage)
				}
			case reply.Code != wire.CodeInvalid:
				t.Errorf("%s with data %q: %q %q", name, data, reply.Code, reply.TransitioningMessage)
			}
		}
	}
}

// TestSecretsStayOut lets everything fail that can, and looks for credentials in what is told.
func TestSecretsStayOut(t *testing.T) {
	for _, name := range []string{"pull", "image.activate", "wide"} {
		s := newStub()
		delete(s.images, "nginx:latest")
		s.fail = func(call string) error {
			if strings.HasPrefix(call, "pull") {
				return fmt.Errorf("denied: %w", runtime.ErrUnsupported)
			}
			return nil
		}
		log, out := recorder()
		p := &reports{}
		reply := newRouter(s, handlers.Options{Log: log}).Serve(t.Context(), event(t, name), p)
		wantError(t, reply, wire.CodeUnsupported, "denied")
		lines, _ := p.all()
		for _, text := range append(lines, out.String(), reply.TransitioningMessage) {
			if strings.Contains(text, "pw") || strings.Contains(text, "user") {
				t.Errorf("%s tells a credential: %s", name, text)
			}
		}
	}
}

// FuzzDecode feeds any data to any event. Nothing may panic, and what is refused must be refused as invalid input.
func FuzzDecode(f *testing.F) {
	for _, name := range []string{"activate", "wide", "deactivate", "remove", "inspect", "pull", "force.stop", "image.activate", "image.build", "volume.activate", "volume.remove", "config.update"} {
		ev := event(f, name)
		f.Add(ev.Name, string(ev.Data))
	}
	f.Add(handlers.EventInstanceActivate, `{"INSTANCEHOSTMAP":{"instance":{"uuid":1,"data":{"fields":{"imageUuid":"nginx:latest","command":"a 'b c' $X \"d\""}}}}}`)
	f.Fuzz(func(t *testing.T, name, data string) {
		if !json.Valid([]byte(data)) {
			return
		}
		ev := &wire.Event{ID: "1", Name: name, ReplyTo: "reply.1", Data: json.RawMessage(data)}
		reply := serve(t, newRouter(badInputStub(), handlers.Options{IPWait: 1, Proc: "/nonexistent"}), ev)
		if reply.Code == wire.CodeInternal && !strings.Contains(reply.TransitioningMessage, "Timeout getting IP") {
			t.Errorf("%s %s: %s", name, data, reply.TransitioningMessage)
		}
	})
}
