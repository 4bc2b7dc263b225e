package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/droverhq/drover/cli/ui"
	"github.com/droverhq/drover/runtime/docker"
)

// A finding is the outcome of one check.
type finding struct {
	Check  string `json:"check"`
	Status string `json:"status"` // ok, warning, failed
	Detail string `json:"detail"`
	Hint   string `json:"hint,omitempty"`
}

const (
	findingOK      = "ok"
	findingWarning = "warning"
	findingFailed  = "failed"
)

func (a *app) doctorCommand() *cobra.Command {
	var engine, stateDir string
	cmd := &cobra.Command{
		Use:   "doctor [URL]",
		Short: "Find out why a host does not join or answer",
		Long: `Checks, step by step, what an agent on this machine needs: the container engine, the state directory, and the way to the
server: proxy, name, TCP, TLS, HTTP, the WebSocket upgrade and the clock. URL is the server or a registration URL; without
one the server of the current context is taken. It changes nothing, and needs no root.

Exit code 0 if nothing failed, else 1.`,
		Example: "  drover doctor\n  drover doctor https://drover.example.org:8443 --ca-file ca.pem\n  drover doctor --output json",
		Args: usage(func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return errors.New("doctor takes one URL")
			}
			return nil
		}),
		RunE: a.run(func(ctx context.Context, args []string) error {
			d := &doctor{app: a}
			d.engine(ctx, a.setting(a.setting(engine, "DROVER_DOCKER_HOST"), "DOCKER_HOST"))
			d.stateDir(a.setting(a.setting(stateDir, "DROVER_STATE_DIR"), "CATTLE_STATE_DIR"))
			target, err := a.doctorTarget(args)
			switch {
			case err != nil:
				d.add("server", findingWarning, err.Error(), "give the server's URL as an argument")
			default:
				d.server(ctx, target)
			}
			return d.print()
		}),
	}
	cmd.Flags().StringVar(&engine, "docker-host", "", "address of dockerd (DOCKER_HOST)")
	cmd.Flags().StringVar(&stateDir, "state-dir", "", "state directory of the agent (DROVER_STATE_DIR)")
	return cmd
}

// doctorTarget is the server to look at.
func (a *app) doctorTarget(args []string) (*serverContext, error) {
	if len(args) == 1 {
		a.flags.server = args[0]
	}
	return a.target()
}

type doctor struct {
	app      *app
	findings []finding
}

func (d *doctor) add(check, status, detail, hint string) {
	d.findings = append(d.findings, finding{check, status, detail, hint})
}

// print shows the findings; a failed one makes the exit code 1.
func (d *doctor) print() error {
	out := d.app.out
	err := out.Print(d.findings, func() error {
		t := &ui.Table{Header: []string{"CHECK", "STATUS", "FOUND"}}
		for _, f := range d.findings {
			style := map[string]ui.Style{findingOK: ui.Good, findingWarning: ui.Busy, findingFailed: ui.Bad}[f.Status]
			t.Row(ui.Text(f.Check), ui.Cell{Text: f.Status, Style: style}, ui.Text(f.Detail))
			if f.Hint != "" {
				t.Row(ui.Text(""), ui.Text(""), ui.Cell{Text: "-> " + f.Hint, Style: ui.Faint})
			}
		}
		return out.Table(t)
	})
	for _, f := range d.findings {
		if f.Status == findingFailed {
			return errors.Join(withExit(ExitFailed, errSilent), err)
		}
	}
	return err
}

func (d *doctor) engine(ctx context.Context, host string) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	e, err := docker.New(docker.Config{Host: host})
	if err != nil {
		d.add("engine", findingFailed, err.Error(), "")
		return
	}
	defer e.Close()
	info, err := e.Info(ctx)
	if err != nil {
		hint := "start dockerd, or name its address with --docker-host"
		if errors.Is(err, os.ErrPermission) {
			hint = "run as root, or join the group docker"
		}
		d.add("engine", findingFailed, err.Error(), hint)
		return
	}
	d.add("engine", findingOK, fmt.Sprintf("docker %s, API %s, storage %s, cgroup v%s, %d containers (%d running)",
		info.Version, info.APIVersion, info.StorageDriver, info.CgroupVersion, info.Containers, info.ContainersRunning), "")
}

func (d *doctor) stateDir(dir string) {
	if dir == "" {
		dir = defaultStateDir
	}
	at := dir
	for {
		if _, err := os.Stat(at); err == nil || at == filepath.Dir(at) {
			break
		}
		at = filepath.Dir(at) // it is made at the first start
	}
	const writable = 2
	if err := syscall.Access(at, writable); err != nil {
		d.add("state directory", findingFailed, fmt.Sprintf("%s: %v", at, err), "run as root, or choose another with --state-dir")
		return
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(at, &st); err != nil {
		d.add("state directory", findingWarning, fmt.Sprintf("%s: %v", at, err), "")
		return
	}
	free := float64(st.Bavail) * float64(st.Bsize)
	detail := fmt.Sprintf("%s, %s free", dir, units.BytesSize(free))
	const tmpfs = 0x01021994
	switch {
	case free < 64<<20:
		d.add("state directory", findingWarning, detail, "the journal of replies needs room")
	case int64(st.Type) == tmpfs:
		d.add("state directory", findingWarning, detail+", in memory", "the host will be a new one after a restart of the machine")
	default:
		d.add("state directory", findingOK, detail, "")
	}
}

// server walks the way to the server and stops where it ends.
func (d *doctor) server(ctx context.Context, t *serverContext) {
	u, err := url.Parse(t.Server)
	if err != nil || u.Host == "" {
		d.add("server", findingFailed, fmt.Sprintf("%q is no URL", t.Server), "")
		return
	}
	u.User, u.Path, u.RawQuery = nil, "", "" // a registration URL carries a token
	base := u.String()
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	host := net.JoinHostPort(u.Hostname(), port)
	proxy, err := proxyFromEnvironment(&http.Request{URL: u})
	switch {
	case err != nil:
		d.add("proxy", findingFailed, err.Error(), "mend HTTP_PROXY, HTTPS_PROXY or NO_PROXY")
		return
	case proxy != nil:
		d.add("proxy", findingOK, "through "+proxy.Redacted(), "")
	default:
		if !d.name(ctx, u.Hostname()) || !d.tcp(ctx, host) {
			return
		}
	}
	transport := &http.Transport{Proxy: proxyFromEnvironment, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // looked at below
	defer transport.CloseIdleConnections()
	cl := &http.Client{Transport: transport, Timeout: 15 * time.Second}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/ping", nil)
	if err != nil {
		d.add("http", findingFailed, err.Error(), "")
		return
	}
	start := time.Now()
	resp, err := cl.Do(req)
	if err != nil {
		d.add("http", findingFailed, err.Error(), "is it http or https?")
		return
	}
	took := time.Since(start)
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20))
	resp.Body.Close()
	if resp.TLS != nil && !d.tls(resp.TLS, t, u.Hostname()) {
		return
	}
	d.add("http", findingOK, fmt.Sprintf("%s in %s", resp.Status, took.Round(time.Millisecond)), "")
	d.clock(resp.Header.Get("Date"), took)
	d.upgrade(ctx, cl, base)
}

func (d *doctor) name(ctx context.Context, host string) bool {
	if net.ParseIP(host) != nil {
		return true
	}
	addrs, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		d.add("name", findingFailed, err.Error(), "check /etc/resolv.conf, or use an address")
		return false
	}
	d.add("name", findingOK, host+" is "+strings.Join(addrs, ", "), "")
	return true
}

func (d *doctor) tcp(ctx context.Context, addr string) bool {
	start := time.Now()
	conn, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", addr)
	if err != nil {
		hint := "a firewall may drop the packets"
		if errors.Is(err, syscall.ECONNREFUSED) {
			hint = "nothing listens there: is the server running?"
		}
		d.add("tcp", findingFailed, err.Error(), hint)
		return false
	}
	d.add("tcp", findingOK, fmt.Sprintf("%s in %s", addr, time.Since(start).Round(10*time.Microsecond)), "")
	return conn.Close() == nil
}

func (d *doctor) tls(state *tls.ConnectionState, t *serverContext, host string) bool {
	leaf := state.PeerCertificates[0]
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	ca := []byte(t.CAData)
	if t.CAFile != "" {
		if ca, err = os.ReadFile(t.CAFile); err != nil {
			d.add("tls", findingFailed, err.Error(), "")
			return false
		}
	}
	if len(ca) > 0 {
		roots = x509.NewCertPool()
		roots.AppendCertsFromPEM(ca)
	}
	between := x509.NewCertPool()
	for _, c := range state.PeerCertificates[1:] {
		between.AddCert(c)
	}
	detail := fmt.Sprintf("%s, subject %s, issuer %s, names %s, until %s", tls.VersionName(state.Version), leaf.Subject, leaf.Issuer,
		strings.Join(certificateNames(leaf), " "), leaf.NotAfter.Format(time.DateOnly))
	if _, err := leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: roots, Intermediates: between}); err != nil {
		hint := "give the server's CA with --ca-file; the one-liner carries its checksum"
		if time.Now().After(leaf.NotAfter) || time.Now().Before(leaf.NotBefore) {
			hint = "the certificate is out of its time, or this machine's clock is wrong"
		}
		d.add("tls", findingFailed, detail+": "+err.Error(), hint)
		return false
	}
	if left := time.Until(leaf.NotAfter); left < 14*24*time.Hour {
		d.add("tls", findingWarning, detail, fmt.Sprintf("the certificate ends in %s", units.HumanDuration(left)))
		return true
	}
	d.add("tls", findingOK, detail, "")
	return true
}

func certificateNames(c *x509.Certificate) []string {
	names := append([]string{}, c.DNSNames...)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	return names
}

// clock compares the server's time with this machine's.
func (d *doctor) clock(date string, took time.Duration) {
	at, err := http.ParseTime(date)
	if err != nil {
		return
	}
	skew := time.Until(at) + took/2
	detail := fmt.Sprintf("the server's clock is %s from this one", skew.Abs().Round(time.Second))
	if skew.Abs() > 30*time.Second {
		d.add("clock", findingWarning, detail, "set the time of both machines with NTP")
		return
	}
	d.add("clock", findingOK, detail, "")
}

// upgrade asks for a WebSocket without credentials: a server refuses it with 401, a proxy in between with something else.
func (d *doctor) upgrade(ctx context.Context, cl *http.Client, base string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/v1/subscribe?eventNames=ping", nil)
	if err != nil {
		d.add("websocket", findingFailed, err.Error(), "")
		return
	}
	for k, v := range map[string]string{
		"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "ZHJvdmVyLWRvY3Rvci0xIQ==",
	} {
		req.Header.Set(k, v)
	}
	resp, err := cl.Do(req)
	if err != nil {
		d.add("websocket", findingFailed, err.Error(), "a proxy may cut upgrades")
		return
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusSwitchingProtocols:
		d.add("websocket", findingOK, "the server takes part ("+resp.Status+")", "")
	default:
		d.add("websocket", findingFailed, "the upgrade was answered with "+resp.Status,
			"a reverse proxy in between may not pass upgrades on: see docs/tls-and-proxies.md")
	}
}
