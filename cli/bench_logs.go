package cli

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/droverhq/drover/cli/bench"
)

func (a *app) benchLogsCommand() *cobra.Command {
	var o bench.LogsOptions
	cmd := &cobra.Command{
		Use: "logs", Short: "Log files over WebSocket: cat, grep, tail, follow, memory",
		Long: `Measures the log service of a node process that it starts, against a plain read, GNU cat and grep, and websocketd, or a
stand-in for it where it is not installed, in turn in the same run. It makes its files under --dir, sparse where they are
large, and removes them.`,
		Example: "  drover bench logs\n  drover bench logs --rounds 3 --output json > logs.json",
		Args:    usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			exe, err := os.Executable()
			if err != nil {
				return err
			}
			o.Executable = exe
			if !a.flags.quiet {
				o.Progress = func(part string) { fmt.Fprintln(a.env.Stderr, "bench: "+part) }
			}
			report, err := bench.Logs(cmd.Context(), o)
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
	f.IntVar(&o.SizeMB, "size", 100, "MB of the file that is read whole")
	f.IntVar(&o.Followers, "followers", 1000, "idle follows")
	f.StringVar(&o.Dir, "dir", "", "where the files are made; empty: the folder for temporary files")
	return cmd
}
