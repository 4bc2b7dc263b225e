package cli

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// healthFile in the state or data directory holds the address of the health listener while agent or server runs.
const healthFile = "health.addr"

// defaultStateDir is where an agent keeps its state.
const defaultStateDir = "/var/lib/drover"

const healthLong = `Asks the agent, or the server, of this machine how it is and exits 0 or 1. An agent is healthy when its server is connected
and its container engine answers; with --live it is enough that it runs. It takes a few milliseconds, so that it suits a
container's health check.

It is found by --address, DROVER_HEALTH_LISTEN, or the file health.addr in its state or data directory.`

// healthFlags are read without cobra: see [Main].
type healthFlags struct {
	address, stateDir string
	live, quiet       bool
	timeout           time.Duration
}

func (o *healthFlags) set() *flag.FlagSet {
	f := flag.NewFlagSet("health", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.StringVar(&o.address, "address", "", "HOST:PORT of the health listener, or https://HOST:PORT")
	f.StringVar(&o.stateDir, "state-dir", "", "state directory of the agent (DROVER_STATE_DIR)")
	f.BoolVar(&o.live, "live", false, "only ask whether it runs")
	f.DurationVar(&o.timeout, "timeout", 3*time.Second, "how long to wait for an answer")
	return f
}

// healthCommand has the help text, and takes the calls with global flags in front.
func (a *app) healthCommand() *cobra.Command {
	var o healthFlags
	cmd := &cobra.Command{
		Use: "health", Short: "Exit 0 if the agent or server of this machine is healthy, else 1", Long: healthLong, Args: takes(),
		Example: "  drover health\n  drover health --live --state-dir /srv/drover",
		RunE: a.run(func(ctx context.Context, _ []string) error {
			o.quiet = a.flags.quiet
			if c := o.report(ctx, a.env); c != ExitOK {
				return withExit(c, errSilent)
			}
			return nil
		}),
	}
	cmd.Flags().AddGoFlagSet(o.set())
	return cmd
}

// health is `drover health` without cobra.
func health(ctx context.Context, env Env, args []string) int {
	var o healthFlags
	f := o.set()
	f.BoolVar(&o.quiet, "quiet", false, "")
	f.BoolVar(&o.quiet, "q", false, "")
	err := f.Parse(args)
	if err == nil && f.NArg() > 0 {
		err = fmt.Errorf("health takes no argument %q", f.Arg(0))
	}
	if err != nil {
		fmt.Fprintf(env.Stderr, "drover: %v\nRun 'drover health --help' for usage.\n", err)
		return ExitUsage
	}
	return o.report(ctx, env)
}

// report asks, prints the answer and returns the exit code.
func (o *healthFlags) report(ctx context.Context, env Env) int {
	text, err := askHealth(ctx, env.Getenv, o)
	if err != nil {
		fmt.Fprintln(env.Stderr, "drover: "+err.Error())
		return ExitFailed
	}
	if !o.quiet {
		fmt.Fprintln(env.Stdout, text)
	}
	return ExitOK
}

func wantsHelp(args []string) bool {
	return slices.ContainsFunc(args, func(s string) bool { return s == "-h" || s == "-help" || s == "--help" })
}

// askHealth sends the request by hand: a client with its pools is not needed for one line.
func askHealth(ctx context.Context, getenv func(string) string, o *healthFlags) (string, error) {
	addr, err := healthAddress(getenv, o)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	host, secure := strings.CutPrefix(addr, "https://")
	host = strings.TrimPrefix(host, "http://")
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", host)
	if err != nil {
		return "", fmt.Errorf("nobody answers at %s: %w", addr, err)
	}
	if secure {
		// Nothing secret is said, and the address is one of this machine's own.
		conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // see above
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return "", err
	}
	path := "/readyz"
	if o.live {
		path = "/healthz"
	}
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", path, host); err != nil {
		return "", err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return "", fmt.Errorf("%s does not answer: %w", addr, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	text := strings.TrimSpace(string(body))
	if err != nil || resp.StatusCode != http.StatusOK {
		return "", errors.Join(errors.New(text), err)
	}
	return text, nil
}

func healthAddress(getenv func(string) string, o *healthFlags) (string, error) {
	if o.address != "" {
		return o.address, nil
	}
	if addr := getenv("DROVER_HEALTH_LISTEN"); addr != "" && !strings.HasSuffix(addr, ":0") {
		return addr, nil
	}
	dirs := []string{o.stateDir}
	if o.stateDir == "" {
		dirs = []string{getenv("DROVER_STATE_DIR"), getenv("CATTLE_STATE_DIR"), getenv("DROVER_DATA"), defaultStateDir}
		if home := getenv("HOME"); home != "" {
			dirs = append(dirs, filepath.Join(firstOf(getenv("XDG_DATA_HOME"), filepath.Join(home, ".local", "share")), "drover"))
		}
	}
	for _, dir := range dirs {
		if dir == "" {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, healthFile))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		return strings.TrimSpace(string(b)), err
	}
	return "", fmt.Errorf("no agent and no server runs with its state in %s", strings.Join(slices.DeleteFunc(dirs, func(d string) bool { return d == "" }), " or "))
}

// publishHealth writes the address of a health listener for [health] and returns a function that takes it back.
func publishHealth(dir, addr string) (func() error, error) {
	path := filepath.Join(dir, healthFile)
	// Not worth a wait for the disk, as atomicfile does: after a crash the address is of no use.
	if err := os.WriteFile(path+".new", []byte(addr+"\n"), 0o600); err != nil {
		return nil, err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return nil, err
	}
	return func() error {
		// Another one that came later with the same directory keeps its address.
		if b, err := os.ReadFile(path); err != nil || strings.TrimSpace(string(b)) != addr {
			return err
		}
		return os.Remove(path)
	}, nil
}
