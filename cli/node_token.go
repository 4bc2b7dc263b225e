package cli

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/droverhq/drover/service/token"
)

// tokenVerbs are what a token may be for.
func tokenVerbs() []string {
	return []string{
		token.VerbLogs, token.VerbStdin, token.VerbExec, token.VerbAttach, token.VerbForward, token.VerbPods, token.VerbStreams, token.VerbLimits,
		token.VerbPrestop,
	}
}

// nodeTokenCommand is `drover node token`.
func (a *app) nodeTokenCommand(configFile *string) *cobra.Command {
	var claims token.Claims
	var life time.Duration
	var write bool
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Make a token for the doors of a node",
		Long: `Makes a token with the key of the doors and prints it: app.logs.token-key-file for log files, app.http.token-key-file for
everything else. A program sends it as "Authorization: Bearer TOKEN", a page in a browser as the WebSocket subprotocol
"drover.token.TOKEN" beside the one that it wants to speak.

A token is for the verbs that it names and can be bound further: to a pod, a container, certain commands, certain users.
Verbs: ` + strings.Join(tokenVerbs(), ", ") + `.

With an Ed25519 key only this command needs the private half; the nodes are given the public one:
  openssl genpkey -algorithm ed25519 -out private.pem && chmod 600 private.pem
  openssl pkey -in private.pem -pubout -out public.pem`,
		Example: `  drover node token --for n1 --user ada --life 5m
  drover node token --verb exec --pod shop/cart-0 --command "ls" --command "cat /etc/hostname"
  drover node token --verb exec,attach --pod shop/cart-0 --container app --run-as www-data`,
		Args: takes(),
	}
	f := cmd.Flags()
	f.SortFlags = false
	addConfigFlags(f, "logs-token-key-file", "http-token-key-file")
	f.StringVar(configFile, "config", "", "configuration file (DROVER_CONFIG; default "+defaultConfigFile+" if it exists)")
	f.StringVar(&claims.Host, "for", "", "name or uuid of the host; empty: this one; * is every host with the key")
	f.StringVar(&claims.User, "user", "", "who is to be named in the audit; empty: the user of this process")
	f.DurationVar(&life, "life", 5*time.Minute, "how long it is valid, at most "+token.MaxLife.String())
	f.StringSliceVar(&claims.Verbs, "verb", []string{token.VerbLogs}, "what it is for; repeat, or separate by commas")
	f.BoolVar(&write, "stdin", false, "may append to stdin files too: the verb stdin")
	f.StringVar(&claims.Pod, "pod", "", "NAMESPACE/POD that it is bound to")
	f.StringVar(&claims.Container, "container", "", "container that it is bound to: an id, or its name in --pod")
	f.StringArrayVar(&claims.Commands, "command", nil, "a command that may be run, or its first words; repeat for several; none: all")
	f.StringArrayVar(&claims.RunAs, "run-as", nil, "user that commands may be run as, beside the container's own; * is all")
	f.BoolVar(&claims.Privileged, "privileged", false, "commands may be privileged")
	cmd.RunE = a.run(func(context.Context, []string) error {
		cfg, err := LoadConfig(a.env.Getenv, *configFile, changedConfigFlags(f))
		if err != nil {
			return withExit(ExitConfig, err)
		}
		if write && !slices.Contains(claims.Verbs, token.VerbStdin) {
			claims.Verbs = append(claims.Verbs, token.VerbStdin)
		}
		file, err := tokenKey(cfg, &claims)
		if err != nil {
			return err
		}
		key, err := token.ReadKey(file)
		if err != nil {
			return withExit(ExitConfig, err)
		}
		if claims.Host == "" {
			host, _ := os.Hostname()
			claims.Host = firstOf(cfg.Agent.Hostname, host)
		}
		claims.User = firstOf(claims.User, a.env.Getenv("USER"), "unknown")
		text, err := key.Sign(claims, life)
		if err != nil {
			return withExit(ExitUsage, err)
		}
		_, err = fmt.Fprintln(a.env.Stdout, text)
		return err
	})
	return cmd
}

// tokenKey checks what a token shall say and returns the file of the key for it.
func tokenKey(cfg *Config, c *token.Claims) (string, error) {
	files, others := 0, 0
	for _, v := range c.Verbs {
		switch {
		case v == token.VerbLogs || v == token.VerbStdin:
			files++
		case slices.Contains(tokenVerbs(), v):
			others++
		default:
			return "", usagef("--verb %q is none of %s", v, strings.Join(tokenVerbs(), ", "))
		}
	}
	if ns, pod, ok := strings.Cut(c.Pod, "/"); c.Pod != "" && (!ok || ns == "" || pod == "") {
		return "", usagef("--pod %q: want NAMESPACE/POD", c.Pod)
	}
	logs, door := cfg.Logs.KeyFile, cfg.Port.TokenKey
	switch {
	case others == 0 && logs != "":
		return logs, nil
	case others == 0:
		return "", usagef("there is no key: give --logs-token-key-file, or set app.logs.token-key-file")
	case door == "":
		return "", usagef("there is no key: give --http-token-key-file, or set app.http.token-key-file")
	case files > 0 && logs != "" && logs != door:
		return "", usagef("log files and the node port have different keys: make a token for each")
	}
	return door, nil
}
