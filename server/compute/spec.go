package compute

import (
	"encoding/json"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

// Values of a container's "pull" field.
const (
	pullMissing = "missing"
	pullAlways  = "always"
	pullNever   = "never"
)

const (
	maxName    = 128
	maxVolumes = 200
	maxPorts   = 1000
)

// A spec is what a create request says, as far as the server itself must understand it. Everything else is handed to
// the agent as it came.
type spec struct {
	Name                string            `json:"name"`
	Description         string            `json:"description"`
	ImageUUID           string            `json:"imageUuid"`
	RequestedHostID     string            `json:"requestedHostId"`
	StartOnCreate       *bool             `json:"startOnCreate"`
	Pull                string            `json:"pull"`
	Labels              map[string]string `json:"labels"`
	Hostname            string            `json:"hostname"`
	Ports               []string          `json:"ports"`
	DataVolumes         []string          `json:"dataVolumes"`
	DataVolumesFrom     []string          `json:"dataVolumesFrom"`
	VolumeDriver        string            `json:"volumeDriver"`
	NetworkMode         string            `json:"networkMode"`
	NetworkContainerID  string            `json:"networkContainerId"`
	MemoryReservation   int64             `json:"memoryReservation"`
	MilliCPUReservation int64             `json:"milliCpuReservation"`
}

// parseSpec reads and checks the fields of a create request, whose types were checked already.
func parseSpec(fields json.RawMessage) (*spec, error) {
	s := &spec{}
	if err := json.Unmarshal(fields, s); err != nil {
		return nil, invalid("", "the container cannot be read: %v", err)
	}
	return s, s.check()
}

var namePattern = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`) })

func (s *spec) check() error {
	if s.Name != "" && (len(s.Name) > maxName || !namePattern().MatchString(s.Name)) {
		return invalid("name", "a name is up to %d letters, digits, dots, dashes and underscores, and begins with a letter or digit", maxName)
	}
	if s.image() == "" || strings.ContainsAny(s.image(), " \t\r\n\x00") {
		return invalid("imageUuid", "%q is no image: want docker:NAME[:TAG]", s.ImageUUID)
	}
	switch s.Pull {
	case "", pullMissing, pullAlways, pullNever:
	default:
		return invalid("pull", "%q is none of missing, always, never", s.Pull)
	}
	if len(s.DataVolumes) > maxVolumes {
		return invalid("dataVolumes", "%d volumes are too many: at most %d", len(s.DataVolumes), maxVolumes)
	}
	for _, v := range s.DataVolumes {
		if _, err := parseVolume(v); err != nil {
			return err
		}
	}
	if len(s.Ports) > maxPorts {
		return invalid("ports", "%d ports are too many: at most %d", len(s.Ports), maxPorts)
	}
	for _, p := range s.Ports {
		if _, err := parsePort(p); err != nil {
			return err
		}
	}
	return nil
}

// image returns the image without Rancher's scheme.
func (s *spec) image() string { return imageName(s.ImageUUID) }

func imageName(uuid string) string {
	name, ok := strings.CutPrefix(uuid, "docker:")
	if !ok {
		name = uuid
	}
	return name
}

func (s *spec) start() bool { return s.StartOnCreate == nil || *s.StartOnCreate }

// A port is one published port.
type port struct {
	bind            string
	public, private int // public 0: any
	protocol        string
}

// parsePort reads "[[bind:][public]:]private[/protocol]". A bind address of IPv6 is written in brackets.
func parsePort(text string) (port, error) {
	bad := invalid("ports", "%q is no port: want [[ADDRESS:]PUBLIC:]PRIVATE[/PROTOCOL]", text)
	rest, protocol, ok := strings.Cut(text, "/")
	p := port{protocol: "tcp"}
	if ok {
		p.protocol = strings.ToLower(protocol)
	}
	if p.protocol != "tcp" && p.protocol != "udp" && p.protocol != "sctp" {
		return p, bad
	}
	if head, tail, ok := strings.Cut(rest, "]:"); ok && strings.HasPrefix(head, "[") {
		p.bind, rest = head[1:], tail
	} else if parts := strings.Split(rest, ":"); len(parts) == 3 {
		p.bind, rest = parts[0], parts[1]+":"+parts[2]
	}
	if p.bind != "" {
		if _, err := netip.ParseAddr(p.bind); err != nil {
			return p, bad
		}
	}
	public, private, ok := strings.Cut(rest, ":")
	if !ok {
		public, private = "", rest
	}
	var err error
	if p.private, err = strconv.Atoi(private); err != nil || p.private < 1 || p.private > 65535 {
		return p, bad
	}
	if public != "" {
		if p.public, err = strconv.Atoi(public); err != nil || p.public < 0 || p.public > 65535 {
			return p, bad
		}
	}
	return p, nil
}

// A volume is one mount of a container.
type volume struct {
	name string // of a named volume; "" for a path of the host and for an anonymous volume
}

// parseVolume reads "path", "source:path" or "source:path:mode", where source is a path or the name of a volume.
func parseVolume(text string) (volume, error) {
	bad := invalid("dataVolumes", "%q is no volume: want [SOURCE:]PATH[:MODE] with an absolute PATH", text)
	parts := strings.Split(text, ":")
	if len(parts) > 3 || strings.ContainsRune(text, 0) {
		return volume{}, bad
	}
	target := parts[0]
	if len(parts) > 1 {
		target = parts[1]
	}
	if !strings.HasPrefix(target, "/") {
		return volume{}, bad
	}
	if len(parts) == 1 || strings.HasPrefix(parts[0], "/") {
		return volume{}, nil
	}
	if !namePattern().MatchString(parts[0]) {
		return volume{}, bad
	}
	return volume{name: parts[0]}, nil
}

// namedVolumes returns the names of the volumes that must exist before the container starts, each once.
func (s *spec) namedVolumes() []string {
	var names []string
	seen := map[string]bool{}
	for _, text := range s.DataVolumes {
		if v, err := parseVolume(text); err == nil && v.name != "" && !seen[v.name] {
			seen[v.name] = true
			names = append(names, v.name)
		}
	}
	return names
}
