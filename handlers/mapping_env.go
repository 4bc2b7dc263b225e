package handlers

import (
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/droverhq/drover/runtime"
)

// agentProxyPort is where an agent instance reaches the server's API through its host.
const agentProxyPort = "9342"

// environment returns the container's variables, sorted. The user's win over those of links and of agent instances;
// the host's proxy settings win in system containers.
func (h *handlers) environment(spec *runtime.ContainerSpec, in *instance) []string {
	env := linkEnv(in.Links)
	if in.AgentID != 0 || in.Labels[labelCattleURL] != "" || in.Data.Fields.Labels[labelCattleURL] != "" {
		spec.Labels[labelAgentID] = strconv.FormatInt(in.AgentID, 10)
		maps.Copy(env, agentEnv(h.opts.ConfigURL))
	}
	maps.Copy(env, in.Data.Fields.Environment)
	if in.System {
		for _, kv := range h.opts.ProxyEnv {
			if k, v, ok := strings.Cut(kv, "="); ok {
				env[k] = v
			}
		}
	}
	list := make([]string, 0, len(env))
	for k, v := range env {
		list = append(list, k+"="+v)
	}
	slices.Sort(list)
	return list
}

// agentEnv tells an agent instance where the server is. A server that calls itself localhost is reached through the
// host.
func agentEnv(configURL string) map[string]string {
	u, err := url.Parse(configURL)
	if err != nil || configURL == "" {
		return nil
	}
	if strings.Contains(u.Hostname(), "localhost") {
		return map[string]string{
			"CATTLE_AGENT_INSTANCE":    "true",
			"CATTLE_CONFIG_URL_SCHEME": u.Scheme,
			"CATTLE_CONFIG_URL_PATH":   u.Path,
			"CATTLE_CONFIG_URL_PORT":   agentProxyPort,
		}
	}
	return map[string]string{"CATTLE_CONFIG_URL": configURL, "CATTLE_URL": configURL}
}

// linkEnv are the variables by which a container knows the instances it is linked to, as docker's links had them.
func linkEnv(links []instanceLink) map[string]string {
	env := make(map[string]string)
	for i := range links {
		l := &links[i]
		if l.LinkName == "" {
			continue
		}
		// The link's own name is a host name; aliases are names of the same host.
		addLink(env, l, l.LinkName, strings.ToLower(l.LinkName))
		for _, alias := range l.Data.Fields.InstanceNames {
			addLink(env, l, alias, l.LinkName)
			if _, rest, ok := strings.Cut(alias, "_"); ok {
				addLink(env, l, rest, l.LinkName)
			}
		}
	}
	return env
}

func addLink(env map[string]string, l *instanceLink, name, host string) {
	if name == "" {
		return
	}
	e := envName(name)
	env[e+"_NAME"] = "/cattle/" + name
	for _, p := range l.Data.Fields.Ports {
		proto := strings.ToLower(p.Protocol)
		if proto == "" {
			proto = "tcp"
		}
		port := strconv.Itoa(int(p.PrivatePort))
		at := proto + "://" + host + ":" + port
		one := e + "_PORT_" + port + "_" + strings.ToUpper(proto)
		env[e+"_PORT"] = at
		env[one] = at
		env[one+"_ADDR"] = host
		env[one+"_PORT"] = port
		env[one+"_PROTO"] = proto
	}
	if l.Target == nil {
		return
	}
	target := l.Target.Data.DockerInspect.Config.Env
	derived := linkPrefixes(target)
	for _, kv := range target {
		k, v, ok := strings.Cut(kv, "=")
		if !ok || k == "" || k == "HOME" || k == "PATH" {
			continue
		}
		if !slices.ContainsFunc(derived, func(prefix string) bool { return strings.HasPrefix(k, prefix) }) {
			env[e+"_ENV_"+k] = v
		}
	}
}

// linkPrefixes returns the prefixes of the variables that stem from the target's own links.
func linkPrefixes(env []string) []string {
	var list []string
	for _, kv := range env {
		k, v, _ := strings.Cut(kv, "=")
		if prefix, ok := strings.CutSuffix(k, "_NAME"); ok && strings.HasPrefix(v, "/cattle/") {
			list = append(list, prefix+"_NAME", prefix+"_PORT", prefix+"_ENV_")
		}
	}
	return list
}

// envName makes the name of a variable: upper case, "_" for whatever a variable's name must not hold.
func envName(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' {
			return r
		}
		return '_'
	}, strings.ToUpper(name))
}
