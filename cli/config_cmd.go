package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/droverhq/drover/cli/ui"
)

func (a *app) configCommand() *cobra.Command {
	var (
		configFile string
		changed    bool
	)
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Print the configuration and where each value comes from",
		Long: `Prints every setting of the long-running roles, with its value and where that comes from: a flag beats the environment,
that the file, that the default. Secrets are masked. The flags of 'drover agent' and 'drover server' are taken here too, so
that a command line can be tried out.

Exit code 3 if the configuration is wrong.`,
		Example: "  drover config\n  drover config --changed\n  drover config --output yaml --config ./application.yaml",
		Args:    takes(),
	}
	f := cmd.Flags()
	f.StringVar(&configFile, "config", "", "configuration file (DROVER_CONFIG; default "+defaultConfigFile+" if it exists)")
	f.BoolVar(&changed, "changed", false, "only what is not the default")
	var hidden []string
	for flag := range keysByFlag() {
		if !isGlobal(flag) {
			hidden = append(hidden, flag)
		}
	}
	addConfigFlags(f, hidden...)
	for _, flag := range hidden {
		f.Lookup(flag).Hidden = true
	}
	cmd.RunE = a.run(func(context.Context, []string) error {
		cfg, err := LoadConfig(a.env.Getenv, configFile, changedConfigFlags(cmd.Flags()))
		if err != nil {
			return withExit(ExitConfig, err)
		}
		values := make([]ConfigValue, 0, len(configKeys()))
		for _, v := range cfg.Values() {
			if !changed || v.Source != sourceDefault {
				values = append(values, v)
			}
		}
		for _, w := range cfg.Warnings {
			a.note("warning: %s", w)
		}
		return a.out.Print(values, func() error {
			t := &ui.Table{Header: []string{"SETTING", "VALUE", "SOURCE", "VARIABLE"}}
			for _, v := range values {
				style := ui.Plain
				if v.Source == sourceDefault {
					style = ui.Faint
				}
				env, _, _ := strings.Cut(v.Env, ",")
				t.Row(ui.Text(v.Key), ui.Text(v.Value), ui.Cell{Text: v.Source, Style: style}, ui.Text(env))
			}
			return a.out.Table(t)
		})
	})
	return cmd
}

// isGlobal reports whether a setting's flag is one that every command takes.
func isGlobal(flag string) bool { return flag == "log-level" || flag == "log-format" }
