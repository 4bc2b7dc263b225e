package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/droverhq/drover/cli/terminal"
	"github.com/droverhq/drover/cli/ui"
)

// The groups of commands in the help text.
const (
	groupRoles   = "roles"
	groupOperate = "operate"
	groupTools   = "tools"
)

// An app is one run of the command line.
type app struct {
	env     Env
	flags   globalFlags
	out     *ui.Printer
	started bool // its RunE began
}

// globalFlags are the flags that every command takes.
type globalFlags struct {
	output    string
	quiet     bool
	noColor   bool
	context   string
	server    string
	key       string
	keyFile   string
	caFile    string
	insecure  bool
	logLevel  string
	logFormat string
}

const rootHelp = `Drover runs containers on many machines from one place. An agent on each machine joins a control server with one
docker run line, dials out, and carries out what the server asks: no machine needs an open port.

One binary is everything: the agent, the server, and the commands to operate them.

  drover dev                      server and agent on this machine, ready in seconds
  drover hosts                    the machines that joined
  drover run --name web -p 8080:80 nginx
  drover exec -it web sh`

// root returns the command line. agentAlone leaves out every other command: an agent shall be subscribed before the flags
// of fifty commands are made.
func (a *app) root(agentAlone bool) *cobra.Command {
	root := &cobra.Command{
		Use:           "drover",
		Short:         "Host agent and control server for container machines",
		Long:          rootHelp,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: usage(func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			text := fmt.Sprintf("unknown command %q", args[0])
			if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
				text += "; did you mean " + strings.Join(near, " or ") + "?"
			}
			return fmt.Errorf("%s", text)
		}),
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(*cobra.Command, []string) error { return a.prepare() },
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.SuggestionsMinimumDistance = 2
	root.SetIn(a.env.Stdin)
	root.SetOut(a.env.Stdout)
	root.SetErr(a.env.Stderr)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return withExit(ExitUsage, err) })
	a.addGlobalFlags(root)
	root.AddGroup(
		&cobra.Group{ID: groupRoles, Title: "Run Drover:"},
		&cobra.Group{ID: groupOperate, Title: "Operate hosts and containers:"},
		&cobra.Group{ID: groupTools, Title: "Tools:"},
	)
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	if agentAlone {
		add(groupRoles, a.agentCommand())
		return root
	}
	add(groupRoles, a.agentCommand(), a.serverCommand(), a.nodeCommand(), a.devCommand())
	add(groupOperate, a.hostsCommand(), a.psCommand(), a.podsCommand(), a.runCommand(), a.startCommand(), a.stopCommand(), a.restartCommand(),
		a.rmCommand(), a.inspectCommand(), a.execCommand(), a.attachCommand(), a.logsCommand(), a.statsCommand(), a.topCommand(), a.cpCommand(),
		a.forwardCommand(), a.recordCommand(), a.playCommand(), a.pullCommand(), a.imageCommand(), a.registryCommand(), a.flogsCommand(), a.lsCommand(), a.getCommand(), a.eventsCommand(), a.contextCommand(), a.tokenCommand())
	add(groupTools, a.configCommand(), a.doctorCommand(), a.benchCommand(), a.healthCommand(), a.versionCommand(), a.completionCommand(root), a.manCommand(root))
	root.SetHelpCommandGroupID(groupTools)
	// Not by a template: the linker keeps every method of every type in a program that can run one, 7 MB of them.
	standard := root.UsageFunc()
	root.SetUsageFunc(func(c *cobra.Command) error {
		err := standard(c)
		if !c.HasParent() {
			fmt.Fprintf(c.OutOrStderr(), "\n%s\n", exitHelp)
		}
		return err
	})
	return root
}

func (a *app) addGlobalFlags(root *cobra.Command) {
	f := root.PersistentFlags()
	f.SortFlags = false
	f.StringVarP(&a.flags.output, "output", "o", "", "table, json or yaml (DROVER_OUTPUT)")
	f.BoolVarP(&a.flags.quiet, "quiet", "q", false, "print identifiers only, no progress")
	f.BoolVar(&a.flags.noColor, "no-color", false, "no colours (NO_COLOR)")
	f.StringVar(&a.flags.context, "context", "", "which server of the context file (DROVER_CONTEXT)")
	f.StringVar(&a.flags.server, "server", "", "URL of the server, instead of a context (DROVER_SERVER)")
	f.StringVar(&a.flags.key, "key", "", "ACCESS:SECRET; others can read it in the process list, so better:")
	f.StringVar(&a.flags.keyFile, "key-file", "", "file with ACCESS:SECRET (DROVER_KEY, DROVER_KEY_FILE)")
	f.StringVar(&a.flags.caFile, "ca-file", "", "PEM file with the CA of the server (DROVER_CA_FILE)")
	f.BoolVar(&a.flags.insecure, "insecure", false, "do not verify the server's certificate")
	f.StringVar(&a.flags.logLevel, "log-level", "", "debug, info, warn or error (DROVER_LOG_LEVEL)")
	f.StringVar(&a.flags.logFormat, "log-format", "", "text or json; text on a terminal (DROVER_LOG_FORMAT)")
	fixed := func(flag string, values ...string) {
		// The only error is a flag that does not exist, or a second call for it.
		_ = root.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
	fixed("output", ui.Formats()...)
	fixed("log-level", "debug", "info", "warn", "error")
	fixed("log-format", "text", "json")
	_ = root.RegisterFlagCompletionFunc("context", a.completeContexts)
}

// prepare checks the global flags and makes the printer.
func (a *app) prepare() error {
	format := a.setting(a.flags.output, "DROVER_OUTPUT")
	if format == "" {
		format = ui.FormatTable
	}
	if !slices.Contains(ui.Formats(), format) {
		return usagef("--output %q is none of %s", format, strings.Join(ui.Formats(), ", "))
	}
	a.out = &ui.Printer{
		Out: a.env.Stdout, Format: format, Quiet: a.flags.quiet,
		Color: a.colored(), Now: time.Now, Width: func() int { return terminalWidth(a.env.Stdout) },
	}
	return nil
}

// setting returns a flag's value, else that of an environment variable.
func (a *app) setting(flag, env string) string {
	if flag != "" {
		return flag
	}
	return a.env.Getenv(env)
}

// colored decides by https://no-color.org and by the terminal.
func (a *app) colored() bool {
	return !a.flags.noColor && a.env.Getenv("NO_COLOR") == "" && a.env.Getenv("TERM") != "dumb" && isTerminal(a.env.Stdout)
}

// run makes a command's function: what fails in it is no usage error any more.
func (a *app) run(f func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		a.started = true
		return f(cmd.Context(), args)
	}
}

// progress returns a progress line on standard error; it draws on a terminal only.
func (a *app) progress() *ui.Progress {
	live := !a.flags.quiet && !a.out.Structured() && isTerminal(a.env.Stderr) && a.env.Getenv("TERM") != "dumb"
	return ui.NewProgress(a.env.Stderr, live, func() int { return terminalWidth(a.env.Stderr) })
}

// note tells people something that is no result.
func (a *app) note(format string, args ...any) {
	if !a.flags.quiet {
		fmt.Fprintf(a.env.Stderr, format+"\n", args...)
	}
}

func isTerminal(f any) bool { return terminal.IsTerminal(f) }

// terminalWidth is 0 where there is no terminal.
func terminalWidth(f any) int { return int(terminal.SizeOf(f).Width) }
