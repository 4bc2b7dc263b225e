// Package wire holds the frames of the control channel: the [Event] that a server pushes and the [Reply] that an
// agent sends back, their JSON form and their tolerant decoders. It is shared by the agent and the server, and uses
// the standard library alone. Nothing in it blocks, starts a goroutine or keeps state.
package wire

import (
	"encoding/json"
	"time"
)

// An Event is one request that a control server pushes to an agent.
//
// The JSON names are Rancher 1.6's. Unknown keys are ignored, and keys whose type differs between servers
// (previousIds as string or array, transitioningProgress as string or number) are read either way.
type Event struct {
	ID            string          `json:"id"`
	Name          string          `json:"name"`
	ReplyTo       string          `json:"replyTo,omitempty"`
	ResourceID    string          `json:"resourceId,omitempty"`
	ResourceType  string          `json:"resourceType,omitempty"`
	PreviousIDs   []string        `json:"previousIds,omitempty"`
	PreviousNames []string        `json:"previousNames,omitempty"`
	Publisher     string          `json:"publisher,omitempty"`
	Data          json.RawMessage `json:"data,omitempty"`
	Time          int64           `json:"time,omitempty"`          // milliseconds since the epoch
	TimeoutMillis int64           `json:"timeoutMillis,omitempty"` // how long the sender waits; 0 means unsaid
}

// Key returns the ordering key "resourceType:resourceId". Events of one key run in order, one at a time. An empty
// key, of an event without a resource id, asks for no order.
func (e *Event) Key() string {
	if e.ResourceID == "" {
		return ""
	}
	return e.ResourceType + ":" + e.ResourceID
}

// Timeout returns how long the sender waits for the final reply, or def where the event does not say.
func (e *Event) Timeout(def time.Duration) time.Duration {
	if e.TimeoutMillis <= 0 {
		return def
	}
	const most = int64(1<<63-1) / int64(time.Millisecond)
	return time.Duration(min(e.TimeoutMillis, most)) * time.Millisecond
}
