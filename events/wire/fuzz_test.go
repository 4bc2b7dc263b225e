package wire

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
)

func seeds(f *testing.F) {
	for _, s := range []string{
		`{"id":"1","name":"ping","replyTo":"reply.1","data":{"options":{"stats":true}},"time":1,"timeoutMillis":15000}`,
		`{"previousIds":["a"],"previousNames":"b","transitioningProgress":"7","data":null}`,
		`{"id":"\ud83d\ude00\n","x":[1,-0.5e+3,true,false,null,{"a":{}}]}`, `{"id":"1"`, ``, `[]`, ` {} `, `{"id":1}`, `{"id":"` + "\xff" + `"}`,
		`{"time":1e400,"timeoutMillis":-1e400}`, `{"id":"1","id":"2"}`, `{"data":` + strings.Repeat("[", 600),
		`{"name":"drover.ack","data":{"ids":["a","b"]}}`,
	} {
		f.Add([]byte(s))
	}
}

func FuzzDecodeEvent(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, frame []byte) {
		ev, err := DecodeEvent(frame)
		if ev == nil {
			t.Fatal("no event")
		}
		var fe *FieldError
		if err != nil && !errors.As(err, &fe) {
			t.Fatalf("%T: %v", err, err)
		}
		if err != nil {
			return
		}
		if !json.Valid(frame) {
			t.Fatalf("took what is no JSON: %q", frame)
		}
		again, err := DecodeEvent(AppendEvent(nil, ev))
		if err != nil || !reflect.DeepEqual(again, ev) {
			t.Fatalf("%v\n%+v\n%+v", err, ev, again)
		}
		if _, err := DecodeAck(ev.Data); err != nil && !errors.As(err, &fe) {
			t.Fatalf("%T: %v", err, err)
		}
	})
}

func FuzzDecodeReply(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, frame []byte) {
		r, err := DecodeReply(frame)
		if r == nil {
			t.Fatal("no reply")
		}
		if err != nil {
			return
		}
		again, err := DecodeReply(AppendReply(nil, r))
		if err != nil || !reflect.DeepEqual(again, r) {
			t.Fatalf("%v\n%+v\n%+v", err, r, again)
		}
		if rancher := AppendRancherReply(nil, r); !json.Valid(rancher) {
			t.Fatalf("no JSON: %s", rancher)
		}
	})
}

// FuzzValid holds the scanner against the standard library's.
func FuzzValid(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		got, want := Valid(b), json.Valid(b)
		if got && !want || want && !got && len(b) <= maxDepth {
			t.Fatalf("%q: %v, encoding/json says %v", b, got, want)
		}
	})
}
