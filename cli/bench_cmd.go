package cli

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/droverhq/drover/cli/bench"
	"github.com/droverhq/drover/cli/ui"
)

const benchHelp = `Measures Drover on this machine against the floor of the same run: raw calls of dockerd's API. Sides are measured in
turn, and what is compared is the ratio of medians; A/A is how far two runs of the same thing differ here. A target
counts as missed only where it is missed by more than that.

The bench makes its own containers and removes them. It needs dockerd and a small image with /bin/sleep.`

func (a *app) benchCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "bench", Short: "Measure the agent against raw dockerd", Long: benchHelp,
		Args: usage(cobra.NoArgs), RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.benchEventsCommand(), a.benchLogsCommand(), a.benchImagesCommand(), a.benchStreamsCommand(), a.benchNodeCommand())
	return cmd
}

func (a *app) benchEventsCommand() *cobra.Command {
	var o bench.Options
	var socket string
	cmd := &cobra.Command{
		Use: "events", Short: "Event to reply: ping, inspect, bursts, lifecycle, reconnect",
		Example: "  drover bench events --image busybox:1\n  drover bench events --rounds 5 --output json > events.json",
		Args:    usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			exe, err := os.Executable()
			if err != nil {
				return err
			}
			o.Executable, o.Docker = exe, strings.TrimPrefix(socket, "unix://")
			if !a.flags.quiet {
				o.Progress = func(part string) { fmt.Fprintln(a.env.Stderr, "bench: "+part) }
			}
			report, err := bench.Events(cmd.Context(), o)
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
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.Rounds, "rounds", 5, "interleaved rounds a case")
	f.Float64Var(&o.Scale, "scale", 1, "samples a round, as a multiple: 0.2 for a quick look")
	f.StringVar(&o.Image, "image", "drover-test/busybox:1", "local image with /bin/sleep")
	f.StringVar(&socket, "docker", "/var/run/docker.sock", "unix socket of dockerd")
	f.BoolVar(&o.Rancher, "rancher", false, "measure as under a Rancher server: a POST a reply")
	return cmd
}

func (a *app) benchImagesCommand() *cobra.Command {
	var o bench.Options
	var socket string
	cmd := &cobra.Command{
		Use: "images", Short: "Pushes and pulls beside the docker command, and what progress costs",
		Long: `Pushes an image of 64 MiB to empty registries on loopback and pulls it again, with the docker command and through an
agent, in turn; then counts the replies to 10,000 progress messages of one pull. It needs dockerd, docker and
docker-registry.`,
		Example: "  drover bench images --rounds 3", Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			exe, err := os.Executable()
			if err != nil {
				return err
			}
			if o.Rounds < 1 {
				return usagef("--rounds %d is less than one", o.Rounds)
			}
			o.Executable, o.Docker = exe, strings.TrimPrefix(socket, "unix://")
			if !a.flags.quiet {
				o.Progress = func(part string) { fmt.Fprintln(a.env.Stderr, "bench: "+part) }
			}
			report, err := bench.Images(cmd.Context(), o)
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
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.Rounds, "rounds", 5, "interleaved rounds")
	f.StringVar(&o.Image, "image", "drover-test/busybox:1", "a local image, for the progress")
	f.StringVar(&socket, "docker", "/var/run/docker.sock", "unix socket of dockerd")
	return cmd
}

func (a *app) writeReport(r *bench.Report) error {
	if a.out.Format == ui.FormatTable {
		return r.WriteTable(a.out.Out)
	}
	return r.WriteJSON(a.out.Out)
}
