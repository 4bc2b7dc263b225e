package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
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
			header := &doc.GenManHeader{Title: "DROVER", Section: "1", Source: "drover " + version, Manual: "Drover"}
			if built, err := time.Parse(time.RFC3339, date); err == nil {
				header.Date = &built
			}
			root.DisableAutoGenTag = true
			if len(args) == 0 {
				return doc.GenMan(root, header, a.env.Stdout)
			}
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			if err := doc.GenManTree(root, header, args[0]); err != nil {
				return err
			}
			pages, err := filepath.Glob(filepath.Join(args[0], "drover*.1"))
			if err != nil {
				return err
			}
			a.note("%d pages", len(pages))
			return nil
		}),
	}
}
