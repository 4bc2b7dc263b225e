package cli

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"gopkg.in/yaml.v3"

	"github.com/droverhq/drover/cli/bench"
	"github.com/droverhq/drover/cli/client"
)

func (a *app) benchStreamsCommand() *cobra.Command {
	var o bench.StreamsOptions
	var socket string
	cmd := &cobra.Command{
		Use: "streams", Short: "Exec, logs and files of containers: through the server, at the node port, against raw dockerd",
		Long: `Measures the streams of a server and an agent that it starts, through the tunnel, at the node port over SPDY and
WebSocket, and with this command itself, against raw calls of dockerd's API in turn in the same run. It makes its own
containers and removes them.`,
		Example: "  drover bench streams\n  drover bench streams --rounds 3 --scale 0.3\n  drover bench streams --only bulk,echo\n  drover bench streams --cycles 10000 --output json > streams.json",
		Args:    usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, part := range o.Only {
				if !slices.Contains(bench.StreamsParts(), part) {
					return withExit(ExitUsage, fmt.Errorf("--only %s: there are %s", part, strings.Join(bench.StreamsParts(), ", ")))
				}
			}
			o.Connect = connectContext
			return a.benchStreams(cmd.Context(), bench.Streams, o, socket)
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.Rounds, "rounds", 5, "interleaved rounds a case")
	f.Float64Var(&o.Scale, "scale", 1, "samples a round, as a multiple: 0.2 for a quick look")
	f.IntVar(&o.Lines, "lines", 1_000_000, "lines of the history")
	f.StringSliceVar(&o.Only, "only", nil, "parts to measure: "+strings.Join(bench.StreamsParts(), ", "))
	f.IntVar(&o.Cycles, "cycles", 0, "streams to open and close, with a look at what is left of them; 0 leaves it out")
	f.StringVar(&o.Image, "image", "drover-test/busybox:1", "local image with busybox's commands")
	f.StringVar(&socket, "docker", "/var/run/docker.sock", "unix socket of dockerd")
	return cmd
}

func (a *app) benchNodeCommand() *cobra.Command {
	var o bench.StreamsOptions
	var socket string
	cmd := &cobra.Command{
		Use: "node", Short: "Exec by pod name at a node's port, with Kubernetes' client, against raw dockerd",
		Long: `Measures the port of a node that it starts, as a kubelet's client sees it: client-go over SPDY and WebSocket at
/exec/NAMESPACE/POD/CONTAINER, against raw calls of dockerd's API in turn in the same run: the time of a process, the
rate of 100 MB, and a line there and back. It makes its own containers, with the labels of pods, and removes them.`,
		Example: "  drover bench node\n  drover bench node --rounds 3 --scale 0.3\n  drover bench node --output json > node.json",
		Args:    usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.benchStreams(cmd.Context(), bench.Node, o, socket)
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.Rounds, "rounds", 5, "interleaved rounds a case")
	f.Float64Var(&o.Scale, "scale", 1, "samples a round, as a multiple: 0.2 for a quick look")
	f.StringVar(&o.Image, "image", "drover-test/busybox:1", "local image with busybox's commands")
	f.StringVar(&socket, "docker", "/var/run/docker.sock", "unix socket of dockerd")
	return cmd
}

// benchStreams runs a suite of this command itself and writes its report.
func (a *app) benchStreams(ctx context.Context, suite func(context.Context, bench.StreamsOptions) (*bench.Report, error), o bench.StreamsOptions, socket string) error {
	if o.Rounds < 1 {
		return usagef("--rounds %d is less than one", o.Rounds)
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	o.Executable, o.Docker = exe, strings.TrimPrefix(socket, "unix://")
	if !a.flags.quiet {
		o.Progress = func(part string) { fmt.Fprintln(a.env.Stderr, "bench: "+part) }
	}
	report, err := suite(ctx, o)
	if report != nil {
		if werr := a.writeReport(report); err == nil {
			err = werr
		}
	}
	if err != nil {
		return err
	}
	if missed := report.Missed(); len(missed) > 0 {
		return withExit(ExitFailed, fmt.Errorf("%d targets missed", len(missed)))
	}
	return nil
}

// connectContext returns a client of the current context of a file.
func connectContext(file string) (*client.Client, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var f contextFile
	if err := yaml.Unmarshal(b, &f); err != nil {
		return nil, err
	}
	c := f.find(f.Current)
	if c == nil {
		return nil, fmt.Errorf("%s has no current context", file)
	}
	return newClient(c)
}
