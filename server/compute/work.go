package compute

import (
	"encoding/json"
	"time"

	"github.com/droverhq/drover/server/store"
	"github.com/google/uuid"
)

// The operations on a container.
const (
	opCreate  = "create"
	opStart   = "start"
	opStop    = "stop"
	opRestart = "restart"
	opRemove  = "remove"
)

// The steps of an operation; a step is one event. A volume's step is followed by the volume's name.
const (
	stepImage      = "image"
	stepPull       = "pull"
	stepVolume     = "volume:"
	stepActivate   = "activate"
	stepDeactivate = "deactivate"
	stepRemove     = "remove"
)

// work is an operation in progress, as it lies in a container's record.
type work struct {
	ID      string    `json:"id"`
	Op      string    `json:"op"`
	Steps   []string  `json:"steps"`
	Step    int       `json:"step"`    // index of the step in progress
	EventID string    `json:"eventId"` // of the step in progress
	From    string    `json:"from"`    // the container's state before
	Timeout *int      `json:"timeout,omitempty"`
	Owner   string    `json:"owner"`
	Lease   time.Time `json:"lease"`
}

func newWork(op string, steps []string, from string) *work {
	return &work{ID: uuid.NewString(), Op: op, Steps: steps, EventID: uuid.NewString(), From: from}
}

// workOf returns the operation in progress, or nil. What cannot be read counts as none: it is of another version.
func workOf(raw json.RawMessage) *work {
	if len(raw) == 0 {
		return nil
	}
	w := &work{}
	if json.Unmarshal(raw, w) != nil || w.ID == "" || w.Step < 0 || w.Step >= len(w.Steps) {
		return nil
	}
	return w
}

func (w *work) raw() json.RawMessage {
	b, _ := json.Marshal(w) // strings, numbers and times: it cannot fail
	return b
}

func (w *work) step() string { return w.Steps[w.Step] }

// advance goes to the next step. It is false where there is none.
func (w *work) advance() bool {
	w.Step++
	w.EventID = uuid.NewString()
	return w.Step < len(w.Steps)
}

// createSteps are those that bring a container that its host does not have to running, or, without start, to the
// point where it can be started.
func createSteps(s *spec, start bool) []string {
	var steps []string
	switch s.Pull {
	case pullNever:
	case pullAlways:
		steps = append(steps, stepPull)
	default:
		steps = append(steps, stepImage)
	}
	for _, name := range s.namedVolumes() {
		steps = append(steps, stepVolume+name)
	}
	if start {
		steps = append(steps, stepActivate)
	}
	return steps
}

// transient is the state of a container while a step is in progress.
func transient(op, step string) string {
	switch {
	case op == opRemove:
		return store.ContainerRemoving
	case op == opCreate:
		if step == stepActivate {
			return store.ContainerStarting
		}
		return store.ContainerCreating
	case step == stepDeactivate:
		return store.ContainerStopping
	}
	return store.ContainerStarting
}
