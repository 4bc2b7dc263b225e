package register

import (
	"encoding/json"
	"fmt"

	client "github.com/rancher/go-rancher/v2"
)

// go-rancher's client takes no context, no proxy and no CA, and its constructor makes calls. So its types describe the
// wire here, and exchange does the calls.

// A record is a register object as far as it is of use.
type record struct {
	id        string
	state     string
	moving    bool   // it is in transition
	trouble   string // why the transition failed; "" is no failure
	key       string // empty while the server hides it
	accessKey string
	secretKey string
}

func fromWire(r *client.Register) *record {
	rec := &record{
		id: r.Id, state: r.State, moving: r.Transitioning == "yes",
		key: r.Key, accessKey: r.AccessKey, secretKey: r.SecretKey,
	}
	switch {
	case r.Transitioning == "error":
		rec.trouble = r.TransitioningMessage
		if rec.trouble == "" {
			rec.trouble = "state " + r.State
		}
	case r.State == "error" || r.State == "removed" || r.State == "purged" || r.State == "erroring":
		rec.trouble = "state " + r.State
		if r.TransitioningMessage != "" {
			rec.trouble += ": " + r.TransitioningMessage
		}
	}
	rec.trouble = cut(rec.trouble, 200)
	return rec
}

func decodeRecord(body []byte) (*record, error) {
	var r client.Register
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, fmt.Errorf("the answer is not a register object (%s): %w", said(body), err)
	}
	if r.Type != client.REGISTER_TYPE {
		return nil, fmt.Errorf("the answer is of type %q and not %q", cut(r.Type, 40), client.REGISTER_TYPE)
	}
	return fromWire(&r), nil
}

// decodeRecords reads a collection.
func decodeRecords(body []byte) ([]*record, error) {
	var c client.RegisterCollection
	if err := json.Unmarshal(body, &c); err != nil {
		return nil, fmt.Errorf("the answer is not a collection (%s): %w", said(body), err)
	}
	if c.Type != "collection" {
		return nil, fmt.Errorf("the answer is of type %q and not a collection", cut(c.Type, 40))
	}
	out := make([]*record, 0, len(c.Data))
	for i := range c.Data {
		out = append(out, fromWire(&c.Data[i]))
	}
	return out, nil
}

// encodeKey is the body of the POST that asks for a registration.
func encodeKey(key string) ([]byte, error) {
	return json.Marshal(map[string]string{"type": client.REGISTER_TYPE, "key": key})
}
