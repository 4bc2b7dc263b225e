package cli

import (
	"context"
	"io"
	"slices"
	"strings"

	"github.com/go-logr/logr"

	"github.com/droverhq/drover/service/logs"
)

// awkWorker is no command for people: it makes the process what [logs.AwkWorker] is.
const awkWorker = "awk-worker"

// Env is what a process is given by its surroundings.
type Env struct {
	Args   []string // without the program's name
	Getenv func(string) string
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	// SetKlog takes the logger of Kubernetes' libraries, which is one for the whole process; nil leaves it alone.
	SetKlog func(logr.Logger)
}

// Main runs the command that env asks for and returns the exit code, one of the Exit constants or the code of a remote
// process. When ctx ends the command ends cleanly.
func Main(ctx context.Context, env Env) int {
	if len(env.Args) > 0 && env.Args[0] == "health" && !wantsHelp(env.Args) {
		// Container runtimes ask every few seconds: answer before anything else is set up.
		return health(ctx, env, env.Args[1:])
	}
	if slices.Equal(env.Args, []string{awkWorker}) {
		return logs.AwkWorker() // started by the log service for one awk program
	}
	a := &app{env: env}
	args := rewrite(env.Args)
	root := a.root(len(args) > 0 && args[0] == "agent" && !wantsHelp(args))
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	return a.exit(ctx, cmd, err)
}

// rewrite turns the forms that an image's entrypoint and the original agent take into commands: a URL as the first word
// and -url URL mean the agent, -version the version.
func rewrite(args []string) []string {
	if len(args) == 0 {
		return args
	}
	first := args[0]
	switch {
	case strings.HasPrefix(first, "http://"), strings.HasPrefix(first, "https://"):
		return append([]string{"agent"}, args...)
	case first == "-url", first == "--url", strings.HasPrefix(first, "-url="), strings.HasPrefix(first, "--url="):
		rest := slices.Clone(args)
		rest[0] = "--" + strings.TrimLeft(first, "-")
		return append([]string{"agent"}, rest...)
	case first == "-version":
		return append([]string{"version"}, args[1:]...)
	case first == "agent":
		rest := slices.Clone(args)
		for i, arg := range rest {
			if arg == "-url" || strings.HasPrefix(arg, "-url=") {
				rest[i] = "-" + arg
			}
		}
		return rest
	}
	return args
}
