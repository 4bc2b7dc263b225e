package client

import (
	"encoding/json"
	"time"
)

// State is what every resource tells about itself.
type State struct {
	State         string `json:"state"`
	Transitioning string `json:"transitioning"` // yes, no, error
	Message       string `json:"transitioningMessage"`
	Progress      Number `json:"transitioningProgress"` // percent
}

// A Number is read from a JSON number or a string that holds one; anything else is 0.
type Number int

// UnmarshalJSON reads n; it fails on nothing.
func (n *Number) UnmarshalJSON(b []byte) error {
	var s json.Number
	if json.Unmarshal(b, &s) == nil {
		if f, err := s.Float64(); err == nil {
			*n = Number(f)
		}
	}
	return nil
}

// A Host is a machine with an agent.
type Host struct {
	ID           string            `json:"id"`
	Name         string            `json:"name"`
	Hostname     string            `json:"hostname"`
	UUID         string            `json:"uuid"`
	Connection   string            `json:"connection"` // online, reconnecting, disconnected
	AgentState   string            `json:"agentState"`
	AgentID      string            `json:"agentId"`
	AgentVersion string            `json:"agentVersion"`
	AgentIP      string            `json:"agentIpAddress"`
	Engine       string            `json:"engine"`
	Labels       map[string]string `json:"labels"`
	Info         json.RawMessage   `json:"info"`
	Created      Time              `json:"created"`
	LastSeen     Time              `json:"lastSeen"`
	State
}

// DisplayName is the name that people use.
func (h *Host) DisplayName() string {
	if h.Name != "" {
		return h.Name
	}
	return h.Hostname
}

// A Container of a host.
type Container struct {
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	ExternalID string            `json:"externalId"` // the engine's id
	Image      string            `json:"imageUuid"`  // "docker:IMAGE"
	HostID     string            `json:"hostId"`
	Created    Time              `json:"created"`
	Labels     map[string]string `json:"labels"`
	Ports      []string          `json:"ports"`
	IP         string            `json:"primaryIpAddress"`
	Native     bool              `json:"native"` // found on the host, not made by the server
	State
}

// A RegistrationToken lets hosts join. Token, URL and Command are secrets.
type RegistrationToken struct {
	ID          string `json:"id"`
	Description string `json:"description"`
	Created     Time   `json:"created"`
	Expires     Time   `json:"expires"`
	Token       string `json:"token"`
	URL         string `json:"registrationUrl"`
	Command     string `json:"command"`
	Image       string `json:"image"`
	State
}

// A PullTask fetches an image on hosts.
type PullTask struct {
	ID     string            `json:"id"`
	Image  string            `json:"image"`
	Status map[string]string `json:"status"` // by host id
	State
}

// Time is read from RFC 3339, from milliseconds since the epoch, or from nothing.
type Time struct{ time.Time }

// UnmarshalJSON reads t; what is no time becomes the zero time.
func (t *Time) UnmarshalJSON(b []byte) error {
	t.Time = time.Time{}
	var s string
	if json.Unmarshal(b, &s) == nil {
		if at, err := time.Parse(time.RFC3339Nano, s); err == nil {
			t.Time = at
		}
		return nil
	}
	var ms int64
	if json.Unmarshal(b, &ms) == nil && ms > 0 {
		t.Time = time.UnixMilli(ms)
	}
	return nil
}

// MarshalJSON writes RFC 3339 in UTC, or null.
func (t Time) MarshalJSON() ([]byte, error) {
	if t.IsZero() {
		return []byte("null"), nil
	}
	return json.Marshal(t.UTC().Format(time.RFC3339))
}
