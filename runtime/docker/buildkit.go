package docker

import (
	"encoding/json"
	"errors"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/droverhq/drover/runtime"
)

// What BuildKit tells is moby.buildkit.v1.StatusResponse in protobuf. Of it these few fields are read, by number, which
// saves the whole of BuildKit's API; unknown ones are passed over.

// maxVertices bounds what a hostile trace can make us remember.
const maxVertices = 10_000

// A vertex is a step of BuildKit's.
type vertex struct {
	step  runtime.BuildStep
	state string
}

// trace takes one message of BuildKit's.
func (o *buildOutput) trace(aux json.RawMessage) error {
	var message []byte
	if err := json.Unmarshal(aux, &message); err != nil {
		return err
	}
	return fields(message, func(num protowire.Number, f field) error {
		switch num {
		case 1:
			return o.vertexes(f.bytes)
		case 2:
			return o.status(f.bytes)
		case 3:
			return o.log(f.bytes)
		}
		return nil
	})
}

// vertexes takes a Vertex: a step that began, ended or failed.
func (o *buildOutput) vertexes(b []byte) error {
	var digest, name, failure string
	var cached bool
	var started, completed time.Time
	err := fields(b, func(num protowire.Number, f field) (err error) {
		switch num {
		case 1:
			digest = string(f.bytes)
		case 3:
			name = string(f.bytes)
		case 4:
			cached = f.varint != 0
		case 5:
			started, err = timestamp(f.bytes)
		case 6:
			completed, err = timestamp(f.bytes)
		case 7:
			failure = string(f.bytes)
		}
		return err
	})
	if err != nil {
		return err
	}
	v := o.find(digest)
	if v == nil {
		return errors.New("too many steps")
	}
	v.step.Step, v.step.Name = stepOf(strings.ToValidUTF8(name, "?"))
	s := v.step
	switch {
	case failure != "" && strings.Contains(failure, "context canceled") && o.failed == nil:
		return nil // another step failed, or will be told to have
	case failure != "":
		o.fail(s, "")
		return nil
	case !completed.IsZero() && cached:
		s.State = runtime.BuildCached
	case !completed.IsZero():
		s.State, s.Millis = runtime.BuildDone, millisBetween(started, completed)
	case !started.IsZero():
		s.State = runtime.BuildStarted
	default:
		return nil
	}
	if s.State != v.state && (v.state == "" || s.State != runtime.BuildStarted) {
		v.state = s.State
		o.tell(s)
	}
	return nil
}

// find returns what is known of a step, nil if there are too many.
func (o *buildOutput) find(digest string) *vertex {
	if o.vertex == nil {
		o.vertex = map[string]*vertex{}
	}
	v := o.vertex[digest]
	if v == nil && len(o.vertex) < maxVertices {
		v = &vertex{step: runtime.BuildStep{ID: shortID(digest)}}
		o.vertex[digest] = v
	}
	return v
}

// status takes a VertexStatus: how far a transfer is.
func (o *buildOutput) status(b []byte) error {
	var id, digest string
	var current, total int64
	err := fields(b, func(num protowire.Number, f field) error {
		switch num {
		case 1:
			id = string(f.bytes)
		case 2:
			digest = string(f.bytes)
		case 4:
			current = int64(f.varint) //nolint:gosec // protobuf's int64
		case 5:
			total = int64(f.varint) //nolint:gosec // likewise
		}
		return nil
	})
	if err != nil || total <= 0 && current <= 0 {
		return err // the step itself is told already
	}
	if v := o.find(digest); v != nil {
		o.tell(runtime.BuildStep{Step: v.step.Step, ID: v.step.ID, Layer: strings.ToValidUTF8(id, "?"), Current: current, Total: total})
	}
	return nil
}

// log takes a VertexLog: output.
func (o *buildOutput) log(b []byte) error {
	var digest, text string
	stream := 1
	err := fields(b, func(num protowire.Number, f field) error {
		switch num {
		case 1:
			digest = string(f.bytes)
		case 3:
			if f.varint == 2 {
				stream = 2
			}
		case 4:
			text = string(f.bytes)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if v := o.find(digest); v != nil {
		o.output(v.step, stream, text)
	}
	return nil
}

// A field is the value of a field of a message: bytes, or a number.
type field struct {
	bytes  []byte
	varint uint64
}

// fields calls each for every field of a message.
func fields(b []byte, each func(protowire.Number, field) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		var f field
		switch typ {
		case protowire.BytesType:
			f.bytes, n = protowire.ConsumeBytes(b)
		case protowire.VarintType:
			f.varint, n = protowire.ConsumeVarint(b)
		default:
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if err := each(num, f); err != nil {
			return err
		}
	}
	return nil
}

// timestamp reads google.protobuf.Timestamp.
func timestamp(b []byte) (time.Time, error) {
	var seconds, nanos int64
	err := fields(b, func(num protowire.Number, f field) error {
		switch num {
		case 1:
			seconds = int64(f.varint) //nolint:gosec // protobuf's int64
		case 2:
			nanos = int64(f.varint) //nolint:gosec // likewise
		}
		return nil
	})
	return time.Unix(seconds, nanos), err
}
