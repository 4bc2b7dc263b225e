package cli

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func (a *app) completionCommand(root *cobra.Command) *cobra.Command {
	shells := []string{"bash", "zsh", "fish", "powershell"}
	return &cobra.Command{
		Use:   "completion bash|zsh|fish|powershell",
		Short: "Print the completion script of a shell",
		Long:  "Prints a script that makes a shell complete commands, flags, and the names of hosts and containers.",
		Example: `  source <(drover completion bash)
  drover completion bash > /etc/bash_completion.d/drover
  drover completion zsh > "${fpath[1]}/_drover"
  drover completion fish > ~/.config/fish/completions/drover.fish`,
		Args: takes("bash, zsh, fish or powershell"), ValidArgs: shells,
		RunE: a.run(func(_ context.Context, args []string) error {
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(a.env.Stdout, true)
			case "zsh":
				return root.GenZshCompletion(a.env.Stdout)
			case "fish":
				return root.GenFishCompletion(a.env.Stdout, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(a.env.Stdout)
			}
			return usagef("%q is none of %s", args[0], strings.Join(shells, ", "))
		}),
	}
}

func (a *app) manCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "man [FOLDER]",
		Short: "Write the manual pages",
		Long: `Writes one manual page a command to FOLDER, which is made if it is missing, or prints the page of drover itself where no
FOLDER is given.`,
		Example: "  drover man | man -l -\n  drover man /usr/local/share/man/man1",
		Args: usage(func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fmt.Errorf("man takes one folder")
			}
			return nil
		}),
		RunE: a.run(func(_ context.Context, args []string) error {
			built, err := time.Parse(time.RFC3339, date)
			if err != nil {
				built = time.Now()
			}
			if len(args) == 0 {
				page := &manPage{date: built}
				page.render(root)
				_, err := page.WriteTo(a.env.Stdout)
				return err
			}
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			pages, err := writeManPages(root, args[0], built)
			if err != nil {
				return err
			}
			a.note("%d pages", pages)
			return nil
		}),
	}
}
