package cli

import (
	"context"
	"fmt"
	goruntime "runtime"

	"github.com/spf13/cobra"

	"github.com/droverhq/drover/cli/ui"
)

// Set by the linker; see scripts/build. They are never changed while the program runs.
var (
	version = "dev"
	commit  = "unknown"
	date    = "unknown"
)

// versionView is what `drover version --json` prints.
type versionView struct {
	Version   string   `json:"version"`
	Commit    string   `json:"commit"`
	Date      string   `json:"date"`
	Go        string   `json:"go"`
	OS        string   `json:"os"`
	Arch      string   `json:"arch"`
	Protocols []string `json:"protocols"` // that the control channel speaks
}

func (a *app) versionCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "version", Short: "Print the version", Args: takes(),
		RunE: a.run(func(context.Context, []string) error {
			v := versionView{
				Version: version, Commit: commit, Date: date, Go: goruntime.Version(), OS: goruntime.GOOS, Arch: goruntime.GOARCH,
				Protocols: []string{"rancher-1.6", "drover-1"},
			}
			if asJSON {
				a.out.Format = ui.FormatJSON
			}
			return a.out.Print(v, func() error {
				text := v.Version
				if !a.flags.quiet {
					text = fmt.Sprintf("drover %s (%s, %s, %s/%s)", v.Version, ui.Short(v.Commit), v.Go, v.OS, v.Arch)
				}
				_, err := fmt.Fprintln(a.out.Out, text)
				return err
			})
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "the same as --output json")
	return cmd
}
