package compute

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/server/store"
)

// object is a JSON object under construction. The names in it are Rancher's, its ids plain numbers, its times epoch
// milliseconds: original agents refuse anything else.
type object map[string]any

// Periods in which an event must be answered or progress be reported.
const (
	activateTimeout = 2 * time.Minute
	stopMargin      = 45 * time.Second // on top of the time that the container itself gets
	stopGrace       = 10 * time.Second // what an agent gives a container that nobody set a time for
	removeTimeout   = time.Minute
	volumeTimeout   = time.Minute
	inspectTimeout  = 30 * time.Second
	pullTimeout     = 30 * time.Minute
	awayTimeout     = 10 * time.Minute // at least this, where the host is not online now
)

// number returns the number in an id such as "1ihm7".
func number(id string) int64 {
	digits := strings.TrimLeft(strings.TrimPrefix(id, "1"), "abcdefghijklmnopqrstuvwxyz")
	n, _ := strconv.ParseInt(digits, 10, 64)
	return n
}

func millis(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UnixMilli()
}

// A job is one container with what belongs to it, as events describe it.
type job struct {
	c    *store.Container
	spec *spec
	host *store.Host
	// networkContainer and volumesFrom are containers of the same host that this one refers to.
	networkContainer *store.Container
	volumesFrom      []*store.Container
}

// event builds the event of a step.
func (j *job) event(w *work) *wire.Event {
	ev := &wire.Event{ID: w.EventID}
	var data object
	timeout := activateTimeout
	step := w.step()
	switch {
	case step == stepImage:
		ev.Name, ev.ResourceType, ev.ResourceID = "storage.image.activate", "imageStoragePoolMap", fmt.Sprintf("1ispm%d", number(j.c.MapID))
		data, timeout = object{"imageStoragePoolMap": j.imageMap()}, pullTimeout
	case step == stepPull:
		ev.Name, ev.ResourceType = "compute.instance.pull", "resourcePull"
		data, timeout = pullData(imageName(j.c.ImageUUID)), pullTimeout
	case strings.HasPrefix(step, stepVolume):
		// Numbers of volumes are made of the container's, so that no two containers share an order that they need not.
		id := number(j.c.MapID)*maxVolumes + int64(w.Step)
		ev.Name, ev.ResourceType, ev.ResourceID = "storage.volume.activate", "volumeStoragePoolMap", fmt.Sprintf("1vspm%d", id)
		data, timeout = object{"volumeStoragePoolMap": j.volumeMap(id, strings.TrimPrefix(step, stepVolume))}, volumeTimeout
	case step == stepDeactivate:
		ev.Name, ev.ResourceType, ev.ResourceID = "compute.instance.deactivate", "instanceHostMap", j.c.MapID
		grace := stopGrace
		data = object{"instanceHostMap": j.instanceMap("deactivating", store.ContainerStopping)}
		if w.Timeout != nil {
			grace = time.Duration(*w.Timeout) * time.Second
			data["processData"] = object{"timeout": *w.Timeout}
		}
		timeout = grace + stopMargin
	case step == stepRemove:
		ev.Name, ev.ResourceType, ev.ResourceID = "compute.instance.remove", "instanceHostMap", j.c.MapID
		data, timeout = object{"instanceHostMap": j.instanceMap("removing", store.ContainerRemoving)}, removeTimeout
	default:
		ev.Name, ev.ResourceType, ev.ResourceID = "compute.instance.activate", "instanceHostMap", j.c.MapID
		data = object{"instanceHostMap": j.instanceMap("activating", store.ContainerStarting)}
	}
	if j.host.Connection != store.ConnectionOnline {
		timeout = max(timeout, awayTimeout)
	}
	ev.TimeoutMillis = timeout.Milliseconds()
	ev.Data = marshal(data)
	return ev
}

func marshal(data object) json.RawMessage {
	b, _ := json.Marshal(data) // strings, numbers and JSON that was checked: it cannot fail
	return b
}

func (j *job) instanceMap(mapState, state string) object {
	return object{
		"id": number(j.c.MapID), "type": "instanceHostMap", "kind": "instanceHostMap", "state": mapState,
		"hostId": number(j.c.HostID), "instanceId": number(j.c.ID), "removed": nil,
		"host": j.hostObject(), "instance": j.instance(state),
	}
}

func (j *job) hostObject() object {
	return object{
		"id": number(j.host.ID), "type": "host", "kind": "docker", "uuid": j.host.UUID, "name": orNull(j.host.Name),
		"state": j.host.State, "agentId": number(j.host.AgentID), "created": millis(j.host.Created), "removed": nil,
		"data": object{"fields": object{"accountId": number(j.host.AccountID)}},
	}
}

func (j *job) instance(state string) object {
	o := reference(j.c)
	o["state"] = state
	o["accountId"] = number(j.c.AccountID)
	o["hostname"] = orNull(j.spec.Hostname)
	o["description"] = orNull(j.c.Description)
	o["system"] = false
	o["created"] = millis(j.c.Created)
	o["removed"] = nil
	o["imageId"] = number(j.c.ID)
	o["agentId"] = nil
	o["memoryReservation"] = orZero(j.spec.MemoryReservation)
	o["milliCpuReservation"] = orZero(j.spec.MilliCPUReservation)
	o["data"] = object{"fields": agentFields(j.c.Fields, j.c.ImageUUID)}
	o["image"] = j.image()
	o["ports"] = j.ports()
	o["nics"] = []object{j.nic()}
	o["volumes"] = []object{}
	o["instanceLinks"] = []object{}
	o["volumesFromDataVolumeMounts"] = []object{}
	from := []object{}
	for _, c := range j.volumesFrom {
		from = append(from, reference(c))
	}
	o["dataVolumesFromContainers"] = from
	o["networkContainer"] = nil
	if j.networkContainer != nil {
		o["networkContainer"] = reference(j.networkContainer)
	}
	return o
}

// reference is as much of a container as an agent needs to find it.
func reference(c *store.Container) object {
	return object{
		"id": number(c.ID), "type": "instance", "kind": "container", "name": c.Name, "uuid": c.UUID,
		"externalId": orNull(c.ExternalID), "nativeContainer": c.Native, "data": object{"fields": object{"imageUuid": c.ImageUUID}},
	}
}

// hidden reports whether a field of a create request means nothing to an agent, or holds ids of this server.
func hidden(name string) bool {
	switch name {
	case "name", "description", "requestedHostId", "dataVolumesFrom", "networkContainerId":
		return true
	}
	return false
}

// agentFields returns the fields of the create request that agents read.
func agentFields(fields json.RawMessage, image string) map[string]json.RawMessage {
	all := map[string]json.RawMessage{}
	_ = json.Unmarshal(fields, &all) // a native container has none
	for name := range all {
		if hidden(name) {
			delete(all, name)
		}
	}
	if _, ok := all["imageUuid"]; !ok && image != "" {
		all["imageUuid"], _ = json.Marshal(image)
	}
	return all
}

func (j *job) image() object {
	name := imageName(j.c.ImageUUID)
	return object{
		"id": number(j.c.ID), "type": "image", "name": name, "uuid": j.c.ImageUUID, "state": store.StateActive,
		"accountId": number(j.c.AccountID), "isPublic": true, "prepopulate": false, "created": millis(j.c.Created),
		"data": object{"dockerImage": dockerImage(name)}, "registryCredential": nil,
	}
}

func dockerImage(name string) object { return object{"fullName": name, "server": "index.docker.io"} }

func (j *job) imageMap() object {
	return object{
		"id": number(j.c.MapID), "type": "imageStoragePoolMap", "state": "activating", "imageId": number(j.c.ID),
		"storagePoolId": number(j.host.ID), "image": j.image(), "storagePool": j.storagePool(),
	}
}

func (j *job) volumeMap(id int64, name string) object {
	driver := j.spec.VolumeDriver
	if driver == "" {
		driver = "local"
	}
	return object{
		"id": id, "type": "volumeStoragePoolMap", "state": "activating", "volumeId": id, "storagePoolId": number(j.host.ID),
		"volume": object{
			// A volume that is not number 0 is never the container's own file system.
			"id": id, "type": "volume", "name": name, "uuid": fmt.Sprintf("%s-%s", j.c.UUID, name), "state": "activating",
			"uri": "", "deviceNumber": 1,
			"data": object{"fields": object{"driver": driver, "driverOpts": object{}, "isHostPath": false}},
		},
		"storagePool": j.storagePool(),
	}
}

func (j *job) storagePool() object {
	uuid := j.host.StoragePoolUUID
	if uuid == "" {
		uuid = j.host.UUID + "-pool"
	}
	return object{
		"id": number(j.host.ID), "type": "storagePool", "kind": "docker", "uuid": uuid, "agentId": number(j.host.AgentID),
		"external": false,
	}
}

func (j *job) ports() []object {
	out := []object{}
	for _, text := range j.spec.Ports {
		p, err := parsePort(text)
		if err != nil {
			continue // of a record that another version wrote
		}
		o := object{"protocol": p.protocol, "privatePort": p.private, "publicPort": nil, "ipAddress": nil, "data": object{"fields": object{}}}
		if p.public > 0 {
			o["publicPort"] = p.public
		}
		if p.bind != "" {
			o["data"] = object{"fields": object{"bindAddress": p.bind}}
		}
		out = append(out, o)
	}
	return out
}

// nic describes the container's network: it is what an agent takes the network mode from.
func (j *job) nic() object {
	kind, name := "dockerBridge", "bridge"
	switch mode, _, _ := strings.Cut(j.spec.NetworkMode, ":"); mode {
	case "host":
		kind, name = "dockerHost", "host"
	case "none":
		kind, name = "dockerNone", "none"
	case "container":
		kind, name = "dockerContainer", "container"
	}
	return object{
		"deviceNumber": 0, "macAddress": "", "ipAddresses": []object{},
		"network": object{"name": name, "kind": kind, "networkServices": []object{}},
	}
}

func pullData(image string) object {
	return object{"instancePull": object{
		"kind": "docker", "mode": "all", "complete": false, "tag": "",
		"image": object{"data": object{"dockerImage": object{"fullName": image, "server": ""}}, "registryCredential": nil},
	}}
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func orZero(n int64) any {
	if n == 0 {
		return nil
	}
	return n
}
