package cli

// PodsConfig is where pods are known from, beside the labels of containers.
type PodsConfig struct {
	Map                string // auto, on or off
	Kubelet            string // URL of the kubelet's /pods
	KubeletTokenFile   string
	KubeletCAFile      string
	KubeletInsecure    bool
	APIServer          bool
	APIServerURL       string // "" is that of the pod's service account, and so are the two that follow
	APIServerTokenFile string
	APIServerCAFile    string
	Sidecars           []string
	NodeName           string
	NodeIP             string
	KmsgPath           string // the kernel's log; "-" is none
	PrestopDir         string
}

// podKeys are the keys of the pod map and of what hangs on it.
func podKeys() []configKey {
	return []configKey{
		key("app.pods.map", "know the pods of this node: on, off; auto: for 'drover node', and for an agent with a CRI runtime",
			oneOf(func(c *Config) *string { return &c.Pods.Map }, "auto", "on", "off")).vars("DROVER_PODS").flagged("pods").defaults("auto"),
		key("app.pods.kubelet", "URL of the kubelet's /pods; empty: it is not asked",
			httpURL(func(c *Config) *string { return &c.Pods.Kubelet })).vars("DROVER_KUBELET"),
		key("app.pods.kubelet-token-file", "token that may read them",
			dir(func(c *Config) *string { return &c.Pods.KubeletTokenFile })).vars("DROVER_KUBELET_TOKEN_FILE"),
		key("app.pods.kubelet-ca-file", "PEM file of the authority of the kubelet's certificate",
			dir(func(c *Config) *string { return &c.Pods.KubeletCAFile })).vars("DROVER_KUBELET_CA_FILE"),
		key("app.pods.kubelet-insecure", "do not verify the kubelet's certificate",
			boolean(func(c *Config) *bool { return &c.Pods.KubeletInsecure })).vars("DROVER_KUBELET_INSECURE").defaults("false").of(kindBool),
		key("app.pods.apiserver", "follow the pods of this node at the API server, with the pod's service account or what follows",
			boolean(func(c *Config) *bool { return &c.Pods.APIServer })).vars("DROVER_APISERVER").defaults("false").of(kindBool),
		key("app.pods.apiserver-url", "URL of the API server, outside of a pod",
			httpURL(func(c *Config) *string { return &c.Pods.APIServerURL })).vars("DROVER_APISERVER_URL"),
		key("app.pods.apiserver-token-file", "token that may list and watch pods",
			dir(func(c *Config) *string { return &c.Pods.APIServerTokenFile })).vars("DROVER_APISERVER_TOKEN_FILE"),
		key("app.pods.apiserver-ca-file", "PEM file of the authority of the API server's certificate",
			dir(func(c *Config) *string { return &c.Pods.APIServerCAFile })).vars("DROVER_APISERVER_CA_FILE"),
		key("app.pods.sidecars", "parts of the names of containers that only help others",
			list(func(c *Config) *[]string { return &c.Pods.Sidecars })).vars("DROVER_SIDECARS").defaults("sidecar").of(kindList),
		key("app.node.name", "name of this node in Kubernetes; empty: the host's",
			text(func(c *Config) *string { return &c.Pods.NodeName })).vars("DROVER_NODE_NAME", "NODE_NAME"),
		key("app.node.ip", "address of this node, for the resource manager",
			text(func(c *Config) *string { return &c.Pods.NodeIP })).vars("DROVER_NODE_IP", "NODE_IP", "HOST_IP").defaults("${app.agent.ip}"),
		key("app.prestop.dir", "takes what pods leave to be run before they end; empty: nothing is taken",
			dir(func(c *Config) *string { return &c.Pods.PrestopDir })).vars("DROVER_PRESTOP_DIR").defaults("/data/dockin_prestop_info"),
		key("app.oom-kmsg-path", `the kernel's log, which tells what was killed for want of memory; "-" is none`,
			text(func(c *Config) *string { return &c.Pods.KmsgPath })).vars("DROVER_KMSG").defaults("/dev/kmsg"),
	}
}
