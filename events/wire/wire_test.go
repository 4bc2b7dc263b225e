package wire

import (
	"encoding/json"
	"errors"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestDecodeEventReadsWhatCattleSends(t *testing.T) {
	frame := `{"id":"fe8f","name":"compute.instance.activate","replyTo":"reply.65","resourceId":"1ihm50","resourceType":"instanceHostMap",
		"previousIds":["a","b"],"previousNames":null,"publisher":null,"transitioning":null,"transitioningProgress":7,"listenerKey":"x",
		"context":{"prettyResource":"i\u0031"},"data":{"instanceHostMap":{"id":50}},"time":1700000000123,"timeoutMillis":45000}`
	ev, err := DecodeEvent([]byte(frame))
	if err != nil {
		t.Fatal(err)
	}
	want := &Event{
		ID: "fe8f", Name: "compute.instance.activate", ReplyTo: "reply.65", ResourceID: "1ihm50", ResourceType: "instanceHostMap",
		PreviousIDs: []string{"a", "b"}, Data: json.RawMessage(`{"instanceHostMap":{"id":50}}`), Time: 1700000000123, TimeoutMillis: 45000,
	}
	if !reflect.DeepEqual(ev, want) {
		t.Errorf("got %+v\nwant %+v", ev, want)
	}
	if ev.Key() != "instanceHostMap:1ihm50" {
		t.Errorf("key %q", ev.Key())
	}
	var viaJSON Event
	if err := json.Unmarshal([]byte(frame), &viaJSON); err != nil || !reflect.DeepEqual(&viaJSON, want) {
		t.Errorf("json.Unmarshal: %v, %+v", err, viaJSON)
	}
}

func TestDecodeEventIsTolerant(t *testing.T) {
	for name, frame := range map[string]string{
		"previousIds as a string":          `{"id":"1","previousIds":"a"}`,
		"previousIds as an empty string":   `{"id":"1","previousIds":""}`,
		"progress as a string":             `{"id":"1","transitioningProgress":"50"}`,
		"progress as a number":             `{"id":"1","transitioningProgress":50}`,
		"keep-alive":                       `{"id":"1","name":"ping","resourceId":null,"resourceType":null,"data":{"options":{},"resources":[]},"time":1}`,
		"null for everything":              `{"id":"1","name":null,"replyTo":null,"resourceId":null,"resourceType":null,"previousIds":null,"previousNames":null,"publisher":null,"data":null,"time":null,"timeoutMillis":null}`,
		"escapes and space":                "\n{ \"\\u0069d\" : \"\\u0031\" , \"data\" : { } }\t\n",
		"numbers with a fraction, or vast": `{"id":"1","time":1.7e12,"timeoutMillis":1e400}`,
		"no members":                       `{}`,
	} {
		ev, err := DecodeEvent([]byte(frame))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if ev.ID != "1" && name != "no members" {
			t.Errorf("%s: id %q", name, ev.ID)
		}
	}
}

// TestDecodeEventNamesTheField gives each field each wrong type: the error names it, and id and replyTo, wherever they
// stand, are still there for the answer.
func TestDecodeEventNamesTheField(t *testing.T) {
	values := map[string]string{
		"a string": `"x"`, "a number": `5`, "a boolean": `true`, "an array": `[1]`, "an object": `{"a":1}`,
	}
	right := map[string][]string{
		"name": {"a string"}, "resourceId": {"a string"}, "resourceType": {"a string"}, "publisher": {"a string"},
		"previousIds": {"a string"}, "previousNames": {"a string"}, "data": {"an object"}, "time": {"a number"}, "timeoutMillis": {"a number"},
	}
	for field, ok := range right {
		for kind, value := range values {
			ev, err := DecodeEvent([]byte(`{"id":"e1","` + field + `":` + value + `,"replyTo":"reply.1"}`))
			if slices.Contains(ok, kind) {
				if err != nil {
					t.Errorf("%s of %s: %v", field, kind, err)
				}
				continue
			}
			var fe *FieldError
			if !errors.As(err, &fe) || fe.Field != field || fe.Got != kind {
				t.Errorf("%s of %s: error %v", field, kind, err)
			}
			if ev.ID != "e1" || ev.ReplyTo != "reply.1" {
				t.Errorf("%s of %s: id %q, replyTo %q are lost", field, kind, ev.ID, ev.ReplyTo)
			}
		}
	}
	for _, field := range []string{"id", "replyTo"} {
		_, err := DecodeEvent([]byte(`{"` + field + `":5}`))
		if err == nil || err.Error() != `field "`+field+`": want a string, got a number` {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func TestDecodeEventOfMalformedFrames(t *testing.T) {
	for frame, want := range map[string]string{
		``:                        `the event: want a JSON object, got nothing`,
		`hello`:                   `the event: want a JSON object, got malformed JSON`,
		`[]`:                      `the event: want a JSON object, got an array`,
		`null`:                    `the event: want a JSON object, got null`,
		`{"id":"1"`:               `field "id": want JSON, got something else at byte 9 of 9`,
		`{"id":"1","data":{"a"}}`: `field "data": want JSON, got something else at byte 21 of 23`,
		`{"id":"1",}`:             `field "id": want JSON, got something else at byte 10 of 11`,
		`{"id":"1"}{}`:            `the event: want JSON, got something else at byte 10 of 12`,
		`{"id":"1","data":{"a":"` + "\x01" + `"}}`: `field "data": want JSON, got something else at byte 23 of 27`,
		`{"id":"1","data":{"a":"\q"}}`:             `field "data": want JSON, got something else at byte 23 of 28`,
		`{"id":"1","data":` + strings.Repeat(`{"a":`, 600) + `1` + strings.Repeat(`}`, 600) + `}`: ``,
	} {
		ev, err := DecodeEvent([]byte(frame))
		if err == nil || want != "" && err.Error() != want {
			t.Errorf("%.40q: %v, want %s", frame, err, want)
		}
		if strings.HasPrefix(frame, `{"id":"1"`) && ev.ID != "1" {
			t.Errorf("%.40q: the id is lost", frame)
		}
	}
	huge := []byte(`{"id":"1","replyTo":"reply.1","data":{"a":"` + strings.Repeat("x", MaxFrame) + `"}}`)
	if ev, err := DecodeEvent(huge); err == nil || ev.ID != "1" || ev.ReplyTo != "reply.1" || !strings.Contains(err.Error(), "at most 8388608 bytes") {
		t.Errorf("huge: %v, id %q", err, ev.ID)
	}
}

func TestEventTimeoutDoesNotOverflow(t *testing.T) {
	for millis, want := range map[int64]time.Duration{0: time.Minute, -5: time.Minute, 45000: 45 * time.Second} {
		if got := (&Event{TimeoutMillis: millis}).Timeout(time.Minute); got != want {
			t.Errorf("%d ms: %s, want %s", millis, got, want)
		}
	}
	if got := (&Event{TimeoutMillis: 1<<63 - 1}).Timeout(time.Minute); got < 24*time.Hour {
		t.Errorf("a vast timeout became %s", got)
	}
}

func TestDecodeReply(t *testing.T) {
	for _, progress := range []string{`42`, `"42"`, `42.9`, `"42.9"`} {
		r, err := DecodeReply([]byte(`{"links":null,"actions":null,"name":"reply.1","previousIds":"e1","transitioning":"yes",
			"transitioningMessage":"half \ud83d\ude00","transitioningProgress":` + progress + `,"data":[1]}`))
		if err != nil {
			t.Fatal(err)
		}
		if r.TransitioningProgress != 42 || r.EventID() != "e1" || r.Final() || r.TransitioningMessage != "half 😀" || string(r.Data) != "[1]" {
			t.Errorf("%s: %+v", progress, r)
		}
	}
	for _, wrong := range []string{`{}`, `"x"`, `[]`, `true`} {
		_, err := DecodeReply([]byte(`{"previousIds":["e1"],"transitioningProgress":` + wrong + `}`))
		var fe *FieldError
		if !errors.As(err, &fe) || fe.Field != "transitioningProgress" {
			t.Errorf("%s: %v", wrong, err)
		}
	}
}

var aUUID = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

func event() *Event {
	return &Event{ID: "ev-1", Name: "compute.instance.activate", ReplyTo: "reply.65", ResourceID: "1ihm50", ResourceType: "instanceHostMap"}
}

// TestRancherForm holds the keys of each kind of reply against what the original agent was seen to post.
func TestRancherForm(t *testing.T) {
	good, err := NewReply(event(), map[string]any{"instanceHostMap": map[string]any{}})
	if err != nil {
		t.Fatal(err)
	}
	if !aUUID.MatchString(good.ID) {
		t.Errorf("id %q is no UUID", good.ID)
	}
	good.ID, good.Time = "c1489fab-00d3-42fe-4427-e551c135936b", 1795177272035
	nothing, _ := NewReply(event(), json.RawMessage(` { } `))
	nothing.ID, nothing.Time = "i", 1
	bare, _ := NewReply(&Event{ID: "ev-1"}, nil)
	bare.ID, bare.Time = "i", 1
	config, _ := NewReply(event(), json.RawMessage(`{"exitCode":1}`))
	config.ID, config.Time, config.Transitioning, config.TransitioningMessage = "i", 1, TransitioningNo, "config update failed"
	for name, c := range map[string]struct {
		reply *Reply
		want  string
	}{
		"good": {good, `{"id":"c1489fab-00d3-42fe-4427-e551c135936b","links":null,"actions":null,"name":"reply.65","previousIds":["ev-1"],` +
			`"resourceId":"1ihm50","resourceType":"instanceHostMap","time":1795177272035,"data":{"instanceHostMap":{}}}`},
		"empty data is left out": {nothing, `{"id":"i","links":null,"actions":null,"name":"reply.65","previousIds":["ev-1"],` +
			`"resourceId":"1ihm50","resourceType":"instanceHostMap","time":1}`},
		"no replyTo, no resource": {bare, `{"id":"i","links":null,"actions":null,"previousIds":["ev-1"],"time":1}`},
		"progress": {NewProgressReply(event(), "Pulling", 0), `{"links":null,"actions":null,"name":"reply.65","previousIds":["ev-1"],` +
			`"resourceId":"1ihm50","resourceType":"instanceHostMap","transitioning":"yes","transitioningMessage":"Pulling"}`},
		"progress with percent": {NewProgressReply(event(), "Pulling", 140), `{"links":null,"actions":null,"name":"reply.65","previousIds":["ev-1"],` +
			`"resourceId":"1ihm50","resourceType":"instanceHostMap","transitioning":"yes","transitioningMessage":"Pulling","transitioningProgress":100}`},
		"bad": {NewErrorReply(event(), CodeNotFound, "no such\nimage \"x\""), `{"links":null,"actions":null,"name":"reply.65","previousIds":["ev-1"],` +
			`"transitioning":"error","transitioningMessage":"no such image \"x\""}`},
		"config.update failed": {config, `{"id":"i","links":null,"actions":null,"name":"reply.65","previousIds":["ev-1"],"resourceId":"1ihm50",` +
			`"resourceType":"instanceHostMap","time":1,"transitioning":"no","transitioningMessage":"config update failed","data":{"exitCode":1}}`},
	} {
		if got := string(AppendRancherReply(nil, c.reply)); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, c.want)
		}
	}
}

func TestDroverForm(t *testing.T) {
	bad := NewErrorReply(event(), CodeNotFound, "no such image")
	want := `{"name":"reply.65","previousIds":["ev-1"],"resourceId":"1ihm50","resourceType":"instanceHostMap",` +
		`"transitioning":"error","transitioningMessage":"no such image","code":"notFound"}`
	if got := string(AppendReply(nil, bad)); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

func TestRoundTrips(t *testing.T) {
	ev := &Event{
		ID: "e", Name: "n\"\\\n\t\r\x01\u2028é😀", ReplyTo: "r", ResourceID: "i", ResourceType: "t", PreviousIDs: []string{"a", "b\n"},
		PreviousNames: []string{"c"}, Publisher: "p", Data: json.RawMessage(`{"a":[1,2]}`), Time: 1, TimeoutMillis: 2,
	}
	frame := AppendEvent(nil, ev)
	if !json.Valid(frame) {
		t.Fatalf("no JSON: %s", frame)
	}
	if got, err := DecodeEvent(frame); err != nil || !reflect.DeepEqual(got, ev) {
		t.Errorf("%v: %+v", err, got)
	}
	r := &Reply{
		ID: "e", Name: "n", PreviousIDs: []string{"a"}, ResourceID: "i", ResourceType: "t", Time: 1, Data: json.RawMessage(`"x"`),
		Transitioning: "yes", TransitioningMessage: "m", TransitioningProgress: 3, Code: CodeBusy,
	}
	if got, err := DecodeReply(AppendReply(nil, r)); err != nil || !reflect.DeepEqual(got, r) {
		t.Errorf("%v: %+v", err, got)
	}
	if got := string(AppendEvent(nil, &Event{ID: "a\xffb"})); got != `{"id":"a`+"\ufffd"+`b"}` {
		t.Errorf("invalid UTF-8: %s", got)
	}
}

func TestNewReplyRefusesWhatIsNoJSON(t *testing.T) {
	for name, data := range map[string]any{
		"truncated": json.RawMessage(`{"a":1`), "bytes": []byte(`nope`), "a channel": make(chan int),
		"too large": []byte(`"` + strings.Repeat("x", MaxFrame) + `"`),
	} {
		if r, err := NewReply(event(), data); err == nil {
			t.Errorf("%s: %.60s", name, r.Data)
		}
	}
	if r, err := NewReply(event(), json.RawMessage{}); err != nil || r.Data != nil {
		t.Errorf("empty raw data: %v, %q", err, r.Data)
	}
	long := NewErrorReply(event(), CodeInternal, strings.Repeat("é", maxText))
	if n := len(long.TransitioningMessage); n > maxText+3 || !strings.HasSuffix(long.TransitioningMessage, "é...") {
		t.Errorf("a long text has %d bytes", n)
	}
}

func TestControlFrames(t *testing.T) {
	ids := []string{"a", "b\"", "c"}
	ev, err := DecodeEvent(AppendAck(nil, Ack{IDs: ids}))
	if err != nil || ev.Name != NameAck {
		t.Fatalf("%v, %+v", err, ev)
	}
	if a, err := DecodeAck(ev.Data); err != nil || !slices.Equal(a.IDs, ids) {
		t.Errorf("%v, %v", err, a)
	}
	if ev, err = DecodeEvent(AppendGoAway(nil, GoAway{RetryAfterMillis: 1500})); err != nil || ev.Name != NameGoAway {
		t.Fatalf("%v, %+v", err, ev)
	}
	if g, err := DecodeGoAway(ev.Data); err != nil || g.RetryAfterMillis != 1500 {
		t.Errorf("%v, %v", err, g)
	}
	for _, bad := range []string{``, `[]`, `{"ids":[1]}`, `{"ids":["a"`} {
		if _, err := DecodeAck([]byte(bad)); err == nil {
			t.Errorf("ack %q was taken", bad)
		}
	}
}
