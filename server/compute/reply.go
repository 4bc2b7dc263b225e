package compute

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/server/store"
)

// An instanceReply is what an agent reports of a container: data.<resourceType>.instance. A key that begins with "+"
// is to be merged into what the server has, one without replaces it; what this server keeps is the same either way.
type instanceReply struct {
	ExternalID string        `json:"externalId"`
	PlusData   *instanceData `json:"+data"`
	Data       *instanceData `json:"data"`
}

type instanceData struct {
	DockerInspect *dockerInspect  `json:"dockerInspect"`
	PlusFields    *instanceFields `json:"+fields"`
	Fields        *instanceFields `json:"fields"`
}

type instanceFields struct {
	DockerIP    *string  `json:"dockerIp"`
	DockerPorts []string `json:"dockerPorts"`
}

// dockerInspect is the little of an engine's inspect that a record keeps.
type dockerInspect struct {
	ID      string `json:"Id"`
	Created string `json:"Created"`
	State   *struct {
		Running bool `json:"Running"`
	} `json:"State"`
	Config *struct {
		Labels map[string]string `json:"Labels"`
	} `json:"Config"`
}

// parseInstance finds the container in a reply. A reply without one is no error: nothing is known then.
func parseInstance(r *wire.Reply, resourceType string) (*instanceReply, error) {
	if len(r.Data) == 0 {
		return &instanceReply{}, nil
	}
	var data map[string]json.RawMessage
	if err := json.Unmarshal(r.Data, &data); err != nil {
		return nil, fmt.Errorf("the host's reply cannot be read: %w", err)
	}
	var wrapped struct {
		Instance *instanceReply `json:"instance"`
	}
	if raw := data[resourceType]; len(raw) > 0 {
		if err := json.Unmarshal(raw, &wrapped); err != nil {
			return nil, fmt.Errorf("the host's reply cannot be read: %w", err)
		}
	}
	if wrapped.Instance == nil {
		return &instanceReply{}, nil
	}
	return wrapped.Instance, nil
}

func (r *instanceReply) data() *instanceData {
	if r.PlusData != nil {
		return r.PlusData
	}
	if r.Data != nil {
		return r.Data
	}
	return &instanceData{}
}

func (d *instanceData) fields() *instanceFields {
	if d.PlusFields != nil {
		return d.PlusFields
	}
	if d.Fields != nil {
		return d.Fields
	}
	return &instanceFields{}
}

// running says whether the container runs after it was activated. It does unless the engine says otherwise.
func (r *instanceReply) running() bool {
	in := r.data().DockerInspect
	return in == nil || in.State == nil || in.State.Running
}

// merge folds what an agent reported into a container's record.
func (r *instanceReply) merge(c *store.Container) {
	data := r.data()
	if r.ExternalID != "" {
		c.ExternalID = r.ExternalID
	}
	f := data.fields()
	c.DockerPorts = f.DockerPorts
	c.PrimaryIPAddress = ""
	if f.DockerIP != nil {
		c.PrimaryIPAddress = *f.DockerIP
	}
	in := data.DockerInspect
	if in == nil {
		return
	}
	if in.ID != "" {
		c.ExternalID = in.ID
	}
	if t, err := time.Parse(time.RFC3339Nano, in.Created); err == nil {
		c.ExternalCreated = t.UTC()
	}
	if c.Native && in.Config != nil {
		c.Labels = in.Config.Labels // those of a container that the server made stay as they were asked for
	}
}
