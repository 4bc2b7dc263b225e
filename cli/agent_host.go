package cli

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/droverhq/drover/register"
	"github.com/droverhq/drover/runtime"
)

// infoTap remembers what the engine said last, for those who must not ask it themselves.
type infoTap struct {
	runtime.Infoer
	last atomic.Pointer[runtime.Info]
}

// Info asks the engine.
func (t *infoTap) Info(ctx context.Context) (runtime.Info, error) {
	info, err := t.Infoer.Info(ctx)
	if err == nil {
		t.last.Store(&info)
	}
	return info, err
}

// storageDriver is "" until the engine was asked once.
func (t *infoTap) storageDriver() string {
	if info := t.last.Load(); info != nil {
		return info.StorageDriver
	}
	return ""
}

// selfContainer returns the id of the container that this process runs in, or nothing. dockerd mounts /etc/hostname and
// others into each container from a folder that has the container's id as its name.
func selfContainer(root fs.FS) []string {
	f, err := root.Open("proc/self/mountinfo")
	if err != nil {
		return nil
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		_, rest, found := strings.Cut(lines.Text(), "/containers/")
		id, _, whole := strings.Cut(rest, "/")
		if found && whole && len(id) == 64 && strings.Trim(id, "0123456789abcdef") == "" {
			return []string{id}
		}
	}
	return nil
}

// hostname is the name that the host reports: the given one, else the machine's. Inside a container with a network of
// its own the machine's name is the container's id, and the engine knows better.
func hostname(ctx context.Context, given string, self []string, engine runtime.Infoer) string {
	if given != "" {
		return given
	}
	name, _ := os.Hostname()
	if len(self) == 0 || name != self[0][:12] {
		return name
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if info, err := engine.Info(ctx); err == nil && info.Name != "" {
		return info.Name
	}
	return name
}

// proxyEnv are the proxy variables of this process for system containers, as the original agent hands them on.
func proxyEnv(getenv func(string) string) []string {
	var env []string
	for _, name := range []string{"http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY"} {
		if v := getenv(name); v != "" {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// scriptEnv is the environment of the script of config.update beside what the handler adds.
func scriptEnv(getenv func(string) string, host *AgentConfig, joined *register.Result) []string {
	return append([]string{
		"PATH=" + firstOf(getenv("PATH"), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
		"CATTLE_URL=" + joined.APIURL,
		"CATTLE_CONFIG_URL=" + firstOf(host.ConfigURL, joined.APIURL),
		"CATTLE_STATE_DIR=" + host.StateDir,
		"CATTLE_AGENT_IP=" + joined.AgentIP,
	}, proxyEnv(getenv)...)
}

// skipItems are items of config.update that are left out.
func skipItems(host *AgentConfig) []string {
	if host.ConfigUpdatePyagent {
		return nil
	}
	return []string{"pyagent"}
}

// engineTLS reads ca.pem, cert.pem and key.pem as docker's own clients do.
func engineTLS(cfg *EngineConfig) (*tls.Config, error) {
	if cfg.DockerCertPath == "" {
		return nil, errors.New("DOCKER_TLS_VERIFY is set without DOCKER_CERT_PATH")
	}
	tc := &tls.Config{InsecureSkipVerify: !cfg.DockerTLSVerify} //nolint:gosec // docker's own meaning of DOCKER_TLS_VERIFY
	ca, err := os.ReadFile(filepath.Join(cfg.DockerCertPath, "ca.pem"))
	switch {
	case err == nil:
		tc.RootCAs = x509.NewCertPool()
		if !tc.RootCAs.AppendCertsFromPEM(ca) {
			return nil, fmt.Errorf("%s/ca.pem holds no certificate", cfg.DockerCertPath)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(cfg.DockerCertPath, "cert.pem"), filepath.Join(cfg.DockerCertPath, "key.pem"))
	switch {
	case err == nil:
		tc.Certificates = []tls.Certificate{pair}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	return tc, nil
}
