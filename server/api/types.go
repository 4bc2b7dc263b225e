package api

// Methods and the sets of them that types use.
func methods(m ...string) []string { return m }

// typeDefs returns every type of the API. Resources that Rancher has and this server does not are left out, so that
// clients say "unknown type" instead of meeting empty lists.
func typeDefs() []*typeDef {
	get := methods("GET")
	all := methods("GET", "PUT", "DELETE")
	both := func(g grant) map[string]grant { return map[string]grant{kindAdmin: g, kindUser: g} }
	instanceActions := methods("start", "stop", "restart", "remove", "execute", "logs", "proxy")
	instance := grant{collection: get, resource: get, actions: instanceActions}
	defs := []*typeDef{
		{id: "schema", plural: "schemas", fields: fieldSet{}.read("id string", "pluralName string"), grants: map[string]grant{
			kindAdmin: {collection: get, resource: get}, kindUser: {collection: get, resource: get},
			kindAgent: {collection: get, resource: get}, kindRegistration: {collection: get, resource: get},
		}},
		{id: "account", plural: "accounts", fields: fieldSet{}.common(), grants: both(grant{collection: get, resource: get})},
		{id: "project", plural: "projects", base: "account", fields: fieldSet{}.common(), grants: both(grant{collection: get, resource: get})},
		{id: "register", plural: "register", fields: registerFields(), grants: map[string]grant{
			kindRegistration: {collection: methods("GET", "POST"), resource: get},
		}},
		{
			id: "registrationToken", plural: "registrationTokens", base: "credential", fields: registrationTokenFields(),
			grants:  map[string]grant{kindAdmin: {collection: methods("GET", "POST"), resource: methods("GET", "DELETE"), actions: methods("remove", "deactivate")}},
			actions: map[string]action{"remove": {Output: "registrationToken"}, "deactivate": {Output: "registrationToken"}},
		},
		{
			id: "apiKey", plural: "apiKeys", base: "credential", fields: apiKeyFields(),
			grants:  map[string]grant{kindAdmin: {collection: methods("GET", "POST"), resource: methods("GET", "DELETE"), actions: methods("remove", "deactivate")}},
			actions: map[string]action{"remove": {Output: "apiKey"}, "deactivate": {Output: "apiKey"}},
		},
		{id: "agent", plural: "agents", fields: agentFields(), grants: map[string]grant{
			kindAdmin: {collection: get, resource: methods("GET", "DELETE"), actions: methods("remove")},
			kindAgent: {collection: get, resource: get},
		}, actions: map[string]action{"remove": {Output: "agent"}}},
		{id: "host", plural: "hosts", fields: hostFields(), grants: map[string]grant{
			kindAdmin: {collection: get, resource: all, actions: methods("remove", "event", "dockersocket")},
			kindUser:  {collection: get, resource: get, actions: methods("event")},
		}, actions: map[string]action{"remove": {Output: "host"}, "event": {Input: "hostEvent", Output: "hostEventReply"}, "dockersocket": {Output: "hostAccess"}}},
		{id: "instance", plural: "instances", fields: containerFields(), grants: both(instance), actions: containerActions()},
		{
			id: "container", plural: "containers", base: "instance", fields: containerFields(), actions: containerActions(),
			grants: both(grant{collection: methods("GET", "POST"), resource: all, actions: instanceActions}),
		},
		{
			id: "containerEvent", plural: "containerEvents", fields: containerEventFields(),
			grants: map[string]grant{kindAgent: {collection: methods("POST")}},
		},
		{
			id: "hostApiProxyToken", plural: "hostApiProxyTokens",
			fields: fieldSet{}.required("reportedUuid string").read("token string", "url string"),
			grants: map[string]grant{kindAgent: {collection: methods("POST")}},
		},
		{
			id: "pullTask", plural: "pullTasks", base: "genericObject", fields: pullTaskFields(),
			grants: both(grant{collection: methods("GET", "POST"), resource: get}),
		},
		{id: "setting", plural: "settings", fields: settingFields(), grants: map[string]grant{
			kindAdmin: {collection: get, resource: methods("GET", "PUT", "DELETE")}, kindUser: {collection: get, resource: get},
		}},
		{id: "publish", plural: "publish", fields: publishFields(), grants: map[string]grant{kindAgent: {collection: methods("POST")}}},
		{
			id: "subscribe", plural: "subscribe", fields: fieldSet{}.create("eventNames array[string]", "agentId reference[agent]"),
			grants: map[string]grant{kindAgent: {collection: get}, kindAdmin: {collection: get}, kindUser: {collection: get}},
		},
	}
	return append(defs, inputTypes(both(grant{}))...)
}

// inputTypes are types that are no resources: parts of others, and inputs and outputs of actions.
func inputTypes(grants map[string]grant) []*typeDef {
	def := func(id string, fs fieldSet) *typeDef {
		return &typeDef{id: id, plural: id + "s", fields: fs, grants: grants}
	}
	return []*typeDef{
		def("restartPolicy", fieldSet{}.create("name string", "maximumRetryCount int")),
		def("logConfig", fieldSet{}.create("driver string", "config map[string]")),
		def("ulimit", fieldSet{}.create("name string", "hard int", "soft int")),
		def("blkioDeviceOption", fieldSet{}.create("weight int", "readIops int", "writeIops int", "readBps int", "writeBps int")),
		def("instanceStop", fieldSet{}.create("remove boolean", "timeout int")),
		def("instanceRemove", fieldSet{}.create("force boolean", "timeout int")),
		def("containerExec", fieldSet{}.required("command array[string]").create("attachStdin boolean", "attachStdout boolean", "tty boolean")),
		def("containerLogs", fieldSet{}.create("follow boolean", "lines int", "timestamps boolean", "since string")),
		def("containerProxy", fieldSet{}.create("port int", "scheme string")),
		def("hostAccess", fieldSet{}.read("url string", "token string")),
		def("statsAccess", fieldSet{}.read("url string", "token string")),
		def("hostEvent", fieldSet{}.required("name string").create("resourceType string", "resourceId string", "data json", "timeoutMillis int")),
		def("hostEventReply", fieldSet{}.read("name string", "data json", "transitioning string", "transitioningMessage string", "code string")),
		def("error", fieldSet{}.read("code string", "message string", "detail string", "status int", "fieldName string")),
	}
}

func containerActions() map[string]action {
	return map[string]action{
		"start":   {Output: "instance"},
		"stop":    {Input: "instanceStop", Output: "instance"},
		"restart": {Input: "instanceStop", Output: "instance"},
		"remove":  {Input: "instanceRemove", Output: "instance"},
		"execute": {Input: "containerExec", Output: "hostAccess"},
		"logs":    {Input: "containerLogs", Output: "hostAccess"},
		"proxy":   {Input: "containerProxy", Output: "hostAccess"},
	}
}

func registerFields() fieldSet {
	return fieldSet{}.common().required("key string").read("accessKey string", "secretKey password", "agentId reference[agent]")
}

func registrationTokenFields() fieldSet {
	return fieldSet{}.common().create("expiresIn int").read("token string", "registrationUrl string", "command string",
		"image string", "publicValue string", "expires date")
}

func apiKeyFields() fieldSet {
	fs := fieldSet{}.common().read("publicValue string", "secretValue password")
	return fs.enum("accountKind", kindUser, kindAdmin)
}

func agentFields() fieldSet {
	return fieldSet{}.common().read("uri string", "managedConfig boolean", "connection string", "since date", "lastSeen date",
		"version string", "remoteAddr string", "quarantine string")
}

func hostFields() fieldSet {
	return fieldSet{}.common().read("hostname string", "agentId reference[agent]", "agentState string", "agentIpAddress string",
		"agentVersion string", "connection string", "lastSeen date", "engine string", "info json",
		"physicalHostUuid string", "apiProxy string", "memory int", "milliCpu int", "localStorageMb int").
		update("labels map[string]")
}

// containerFields are Rancher's fields that an agent reads (and a few that people look at), and "pull".
func containerFields() fieldSet {
	fs := fieldSet{}.common().create(
		"imageUuid string", "command array[string]", "entryPoint array[string]", "environment map[string]",
		"labels map[string]", "ports array[string]", "expose array[string]", "publishAllPorts boolean",
		"dataVolumes array[string]", "dataVolumesFrom array[reference[container]]", "volumeDriver string",
		"requestedHostId reference[host]", "startOnCreate boolean", "tty boolean", "stdinOpen boolean",
		"privileged boolean", "readOnly boolean", "networkMode string", "networkContainerId reference[container]",
		"restartPolicy restartPolicy", "hostname string", "domainName string", "workingDir string", "user string",
		"stopSignal string", "stopTimeout int", "extraHosts array[string]", "securityOpt array[string]",
		"capAdd array[string]", "capDrop array[string]", "dns array[string]", "dnsSearch array[string]",
		"dnsOpt array[string]", "groupAdd array[string]", "pidMode string", "ipcMode string", "uts string",
		"usernsMode string", "cgroup string", "cgroupParent string", "logConfig logConfig", "devices array[string]",
		"cpuSet string", "cpuSetMems string", "cpuPeriod int", "cpuQuota int", "cpuRealtimePeriod int",
		"cpuRealtimeRuntime int", "cpuShares int", "milliCpuReservation int", "memory int", "memorySwap int",
		"memoryReservation int", "kernelMemory int", "memorySwappiness int", "shmSize int", "diskQuota int",
		"pidsLimit int", "oomKillDisable boolean", "oomScoreAdj int", "blkioWeight int",
		"blkioDeviceOptions map[blkioDeviceOption]", "tmpfs map[string]", "sysctls map[string]", "storageOpt map[string]",
		"ulimits array[ulimit]", "runInit boolean", "healthCmd array[string]", "healthInterval int", "healthTimeout int",
		"healthRetries int", "isolation string", "userdata string").
		read("externalId string", "hostId reference[host]", "primaryIpAddress string", "dockerPorts array[string]",
			"native boolean", "nativeContainer boolean", "system boolean", "externalCreated date", "instanceTriggeredStop string")
	fs["imageUuid"] = field{Type: "string", Create: true, Required: true}
	fs["startOnCreate"] = field{Type: "boolean", Nullable: true, Create: true, Default: true}
	return fs.enum("pull", "missing", "always", "never")
}

func containerEventFields() fieldSet {
	return fieldSet{}.common().without("name", "description", "data").create("data map[json]", "externalTimestamp int",
		"externalFrom string", "externalId string", "externalStatus string", "reportedHostUuid string", "dockerInspect json").
		read("hostId reference[host]")
}

func pullTaskFields() fieldSet {
	fs := fieldSet{}.common().required("image string").create("hostIds array[reference[host]]", "labels map[string]").
		read("status map[string]")
	return fs.enum("mode", "all", "cached")
}

func settingFields() fieldSet {
	return fieldSet{}.update("value string").read("id string", "type string", "name string", "activeValue string", "inDb boolean", "source string")
}

func publishFields() fieldSet {
	return fieldSet{}.create("id string", "resourceId string", "resourceType string", "previousIds array[string]", "data json",
		"time int", "publisher string", "transitioning string", "transitioningMessage string",
		"transitioningInternalMessage string", "transitioningProgress int").required("name string")
}
