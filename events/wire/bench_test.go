package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"
)

func anEvent(size int) []byte {
	head := `{"id":"fe8fe34c-1b13-4287-a094-a2c5f902722b","name":"compute.instance.inspect","replyTo":"reply.6533363327570546786",` +
		`"resourceId":"1ihm50","resourceType":"instanceInspect","time":1700000000123,"timeoutMillis":45000,"data":{"instanceInspect":{`
	var b bytes.Buffer
	b.WriteString(head)
	for i := 0; b.Len() < size-20; i++ {
		fmt.Fprintf(&b, `"field%d":"value %d",`, i, i)
	}
	b.WriteString(`"id":"b7c1"}}}`)
	return b.Bytes()
}

func BenchmarkEventDecode(b *testing.B) {
	frame := anEvent(1024)
	b.SetBytes(int64(len(frame)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeEvent(frame); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkReplyEncode relays a document of 4 KiB, as inspect does.
func BenchmarkReplyEncode(b *testing.B) {
	ev, _ := DecodeEvent(anEvent(1024))
	doc := json.RawMessage(anEvent(4096))
	dst := make([]byte, 0, 8192)
	b.SetBytes(int64(len(doc)))
	b.ReportAllocs()
	for b.Loop() {
		r, err := NewReply(ev, doc)
		if err != nil {
			b.Fatal(err)
		}
		dst = AppendReply(dst[:0], r)
	}
}

func BenchmarkReplyDecode(b *testing.B) {
	ev, _ := DecodeEvent(anEvent(1024))
	r, _ := NewReply(ev, json.RawMessage(anEvent(4096)))
	frame := AppendReply(nil, r)
	b.SetBytes(int64(len(frame)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeReply(frame); err != nil {
			b.Fatal(err)
		}
	}
}
