package wire

import "encoding/json"

// The values of [Reply.Transitioning]. A reply without one, or with TransitioningNo, is final and good;
// TransitioningError is final and bad; TransitioningYes reports progress and is never final.
const (
	TransitioningYes   = "yes"
	TransitioningNo    = "no"
	TransitioningError = "error"
)

// A Reply is what an agent answers to an [Event]: any number of progress replies, then exactly one final reply.
type Reply struct {
	ID                    string          `json:"id,omitempty"`
	Name                  string          `json:"name,omitempty"` // the event's replyTo
	PreviousIDs           []string        `json:"previousIds,omitempty"`
	ResourceID            string          `json:"resourceId,omitempty"`
	ResourceType          string          `json:"resourceType,omitempty"`
	Time                  int64           `json:"time,omitempty"` // milliseconds since the epoch
	Data                  json.RawMessage `json:"data,omitempty"`
	Transitioning         string          `json:"transitioning,omitempty"`
	TransitioningMessage  string          `json:"transitioningMessage,omitempty"`
	TransitioningProgress int             `json:"transitioningProgress,omitempty"` // percent
	Code                  string          `json:"code,omitempty"`                  // one of the Code constants; only between Drover agents and servers
}

// Error codes of [Reply.Code]. They travel only on a Drover-to-Drover socket.
const (
	CodeBusy        = "busy"        // the agent's queue is full; try again later
	CodeInvalid     = "invalid"     // the event itself is wrong
	CodeNotFound    = "notFound"    // the named object does not exist
	CodeConflict    = "conflict"    // the object is in a state that forbids it
	CodeUnsupported = "unsupported" // no handler, or the engine cannot do it
	CodeUnavailable = "unavailable" // the engine is down or hung
	CodeDenied      = "denied"      // forbidden by the host's policy
	CodeTimeout     = "timeout"     // the deadline of the event passed
	CodeInternal    = "internal"    // everything else
)

// Final reports whether r ends its event.
func (r *Reply) Final() bool {
	return r.Transitioning == "" || r.Transitioning == TransitioningNo || r.Transitioning == TransitioningError
}

// EventID returns the id of the event that r answers, or "" where it names none.
func (r *Reply) EventID() string {
	if len(r.PreviousIDs) == 0 {
		return ""
	}
	return r.PreviousIDs[0]
}
