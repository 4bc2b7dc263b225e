package handlers

import (
	"mvdan.cc/sh/v3/shell"
)

// instance is a container as the server knows it.
type instance struct {
	UUID              string            `json:"uuid"`
	Name              string            `json:"name"`
	ExternalID        string            `json:"externalId"`
	Hostname          string            `json:"hostname"`
	System            bool              `json:"system"`
	Native            bool              `json:"nativeContainer"`
	AgentID           int64             `json:"agentId"`
	MemoryReservation int64             `json:"memoryReservation"` // bytes
	MilliCPU          int64             `json:"milliCpuReservation"`
	Labels            map[string]string `json:"labels"`
	Image             *image            `json:"image"`
	Ports             []instancePort    `json:"ports"`
	Nics              []nic             `json:"nics"`
	Links             []instanceLink    `json:"instanceLinks"`
	NetworkContainer  *instance         `json:"networkContainer"`
	VolumesFrom       []instance        `json:"dataVolumesFromContainers"`
	DataVolumeMounts  []volume          `json:"volumesFromDataVolumeMounts"`
	Data              struct {
		Fields        instanceFields `json:"fields"`
		DockerInspect struct {
			Config struct {
				Env []string `json:"Env"`
			} `json:"Config"`
		} `json:"dockerInspect"`
	} `json:"data"`
	ProcessData processData `json:"processData"`
}

// instanceFields are what the user asked for.
type instanceFields struct {
	ImageUUID       string            `json:"imageUuid"`
	Command         words             `json:"command"`
	EntryPoint      words             `json:"entryPoint"`
	Environment     map[string]string `json:"environment"`
	Labels          map[string]string `json:"labels"`
	WorkingDir      string            `json:"workingDir"`
	User            string            `json:"user"`
	DomainName      string            `json:"domainName"`
	StopSignal      string            `json:"stopSignal"`
	StopTimeout     *int              `json:"stopTimeout"` // seconds
	TTY             bool              `json:"tty"`
	StdinOpen       bool              `json:"stdinOpen"`
	Privileged      bool              `json:"privileged"`
	ReadOnly        bool              `json:"readOnly"`
	PublishAllPorts bool              `json:"publishAllPorts"`
	NetworkMode     string            `json:"networkMode"`
	Pull            string            `json:"pull"` // Drover's own: "never" leaves a missing image an error

	ExtraHosts  []string `json:"extraHosts"`
	SecurityOpt []string `json:"securityOpt"`
	CapAdd      []string `json:"capAdd"`
	CapDrop     []string `json:"capDrop"`
	DNS         []string `json:"dns"`
	DNSSearch   []string `json:"dnsSearch"`
	DNSOpt      []string `json:"dnsOpt"`
	GroupAdd    []string `json:"groupAdd"`

	PidMode      string `json:"pidMode"`
	IpcMode      string `json:"ipcMode"`
	UTS          string `json:"uts"`
	UsernsMode   string `json:"usernsMode"`
	Cgroup       string `json:"cgroup"`
	CgroupParent string `json:"cgroupParent"`
	RunInit      *bool  `json:"runInit"`

	LogConfig struct {
		Driver string            `json:"driver"`
		Config map[string]string `json:"config"`
	} `json:"logConfig"`
	RestartPolicy struct {
		Name              string `json:"name"`
		MaximumRetryCount int    `json:"maximumRetryCount"`
	} `json:"restartPolicy"`

	DataVolumes []string          `json:"dataVolumes"`
	Devices     []string          `json:"devices"`
	Tmpfs       map[string]string `json:"tmpfs"`
	Sysctls     map[string]string `json:"sysctls"`
	StorageOpt  map[string]string `json:"storageOpt"`

	CPUSet             string                 `json:"cpuSet"`
	CPUSetMems         string                 `json:"cpuSetMems"`
	CPUPeriod          int64                  `json:"cpuPeriod"`
	CPUQuota           int64                  `json:"cpuQuota"`
	CPURealtimePeriod  int64                  `json:"cpuRealtimePeriod"`
	CPURealtimeRuntime int64                  `json:"cpuRealtimeRuntime"`
	CPUShares          int64                  `json:"cpuShares"`
	Memory             int64                  `json:"memory"`
	MemorySwap         int64                  `json:"memorySwap"`
	MemorySwappiness   *int64                 `json:"memorySwappiness"`
	KernelMemory       int64                  `json:"kernelMemory"`
	ShmSize            int64                  `json:"shmSize"`
	DiskQuota          int64                  `json:"diskQuota"`
	PidsLimit          *int64                 `json:"pidsLimit"`
	OomKillDisable     *bool                  `json:"oomKillDisable"`
	OomScoreAdj        int                    `json:"oomScoreAdj"`
	BlkioWeight        uint16                 `json:"blkioWeight"`
	BlkioDeviceOptions map[string]blkioDevice `json:"blkioDeviceOptions"`
	Ulimits            []struct {
		Name string `json:"name"`
		Hard int64  `json:"hard"`
		Soft int64  `json:"soft"`
	} `json:"ulimits"`

	HealthCmd      healthTest `json:"healthCmd"`
	HealthInterval int64      `json:"healthInterval"` // seconds
	HealthTimeout  int64      `json:"healthTimeout"`  // seconds
	HealthRetries  int        `json:"healthRetries"`
}

// blkioDevice limits one disk.
type blkioDevice struct {
	Weight    uint16 `json:"weight"`
	ReadIOps  uint64 `json:"readIops"`
	WriteIOps uint64 `json:"writeIops"`
	ReadBps   uint64 `json:"readBps"`
	WriteBps  uint64 `json:"writeBps"`
}

// instancePort is a published port.
type instancePort struct {
	PrivatePort uint16 `json:"privatePort"`
	PublicPort  uint16 `json:"publicPort"`
	Protocol    string `json:"protocol"`
	Data        struct {
		Fields struct {
			BindAddress string `json:"bindAddress"`
		} `json:"fields"`
	} `json:"data"`
}

// nic is a container's place in a network.
type nic struct {
	DeviceNumber int    `json:"deviceNumber"`
	MacAddress   string `json:"macAddress"`
	IPAddresses  []struct {
		Address string `json:"address"`
		Role    string `json:"role"`
		Subnet  struct {
			CIDRSize int `json:"cidrSize"`
		} `json:"subnet"`
	} `json:"ipAddresses"`
	Network struct {
		Name string `json:"name"`
		Kind string `json:"kind"`
	} `json:"network"`
}

// instanceLink is another instance that this one knows by a name.
type instanceLink struct {
	LinkName string    `json:"linkName"`
	Target   *instance `json:"targetInstance"`
	Data     struct {
		Fields struct {
			InstanceNames []string `json:"instanceNames"`
			Ports         []struct {
				Protocol    string `json:"protocol"`
				PrivatePort uint16 `json:"privatePort"`
			} `json:"ports"`
		} `json:"fields"`
	} `json:"data"`
}

// words is a command: an array, or a line that is split as a shell does, with its quotes and escapes. No shell runs:
// variables stay as they are written, and what needs a shell (a pipe, a substitution) is an error.
type words []string

func (w *words) decodeTree(path string, v any) error {
	line, ok := v.(string)
	if !ok {
		return decodeList(path, v, "an array of strings or a string", (*[]string)(w))
	}
	fields, err := shell.Fields(line, func(name string) string { return "$" + name })
	if err != nil {
		return invalid(path, "not a plain command line")
	}
	*w = fields
	return nil
}

// healthTest is what docker calls a test: an array, whose first word says how it is run, or a line for a shell.
type healthTest []string

func (t *healthTest) decodeTree(path string, v any) error {
	if line, ok := v.(string); ok {
		if line != "" {
			*t = healthTest{"CMD-SHELL", line}
		}
		return nil
	}
	return decodeList(path, v, "an array of strings or a string", (*[]string)(t))
}

func decodeList(path string, v any, expected string, dst *[]string) error {
	if v == nil {
		return nil
	}
	if _, ok := v.([]any); !ok {
		return mismatch(path, expected, v)
	}
	var list []string
	if err := decodeInto(path, v, &list); err != nil {
		return err
	}
	*dst = list
	return nil
}
