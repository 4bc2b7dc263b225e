package cli

import (
	"context"
	"path"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/droverhq/drover/cli/client"
	"github.com/droverhq/drover/cli/ui"
)

// completing bounds the wait of somebody who has pressed Tab.
const completing = 5 * time.Second

const noFiles = cobra.ShellCompDirectiveNoFileComp

// complete asks the server for what the user may mean.
func (a *app) complete(cmd *cobra.Command, f func(context.Context, *client.Client) ([]string, error)) ([]string, cobra.ShellCompDirective) {
	c, err := a.client()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(cmd.Context(), completing)
	defer cancel()
	words, err := f(ctx, c)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return words, noFiles
}

func (a *app) completeHosts(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return a.complete(cmd, func(ctx context.Context, c *client.Client) ([]string, error) {
		hosts, err := c.Hosts(ctx)
		words := make([]string, len(hosts))
		for i := range hosts {
			words[i] = word(hosts[i].DisplayName(), hosts[i].Connection)
		}
		return words, err
	})
}

// completeContainers completes names of containers: alone where they are unique, as HOST/CONTAINER otherwise, and so too
// once the host is there.
func (a *app) completeContainers(cmd *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
	return a.complete(cmd, func(ctx context.Context, c *client.Client) ([]string, error) {
		return containerWords(ctx, c, begun, "", func(*client.Container) bool { return true })
	})
}

// completeRunning completes names of containers that run, as the first argument; what follows it is not ours to know.
func (a *app) completeRunning(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 && cmd.Name() != "stats" {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return a.complete(cmd, func(ctx context.Context, c *client.Client) ([]string, error) {
		return containerWords(ctx, c, begun, "", func(c *client.Container) bool { return c.State.State == "running" })
	})
}

// containerWords returns the names that begin so, each with an ending.
func containerWords(ctx context.Context, c *client.Client, begun, ending string, want func(*client.Container) bool) ([]string, error) {
	list, err := c.Containers(ctx, nil)
	if err != nil {
		return nil, err
	}
	hosts, err := c.Hosts(ctx)
	if err != nil {
		return nil, err
	}
	where := hostNames(hosts)
	count := map[string]int{}
	for i := range list {
		count[list[i].Name]++
	}
	var words []string
	for i := range list {
		one := &list[i]
		if !want(one) || one.Name == "" {
			continue
		}
		name, about := one.Name, one.State.State+" on "+where[one.HostID]
		if strings.Contains(begun, "/") || count[one.Name] > 1 {
			name, about = where[one.HostID]+"/"+one.Name, one.State.State
		}
		if strings.HasPrefix(name, begun) {
			words = append(words, word(name+ending, about))
		}
	}
	return words, nil
}

// word is a completion with what is to be known of it.
func word(text, about string) string { return ui.Clean(text) + "\t" + ui.Clean(about) }

// completeCopy completes a file here, CONTAINER: and paths in it.
func (a *app) completeCopy(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 1 {
		return nil, noFiles
	}
	ref, name, inside := splitPlace(begun)
	if !inside && (strings.HasPrefix(begun, ".") || strings.HasPrefix(begun, "/") || strings.HasPrefix(begun, "~")) {
		return nil, cobra.ShellCompDirectiveDefault
	}
	words, directive := a.complete(cmd, func(ctx context.Context, c *client.Client) ([]string, error) {
		if !inside {
			return containerWords(ctx, c, begun, ":", func(*client.Container) bool { return true })
		}
		return a.pathWords(ctx, c, ref, name)
	})
	if directive != noFiles {
		return words, directive
	}
	if !inside && len(words) == 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return words, noFiles | cobra.ShellCompDirectiveNoSpace
}

// pathWords returns the paths in a container that begin so.
func (a *app) pathWords(ctx context.Context, c *client.Client, ref, begun string) ([]string, error) {
	t, err := a.container(ctx, c, ref, "")
	if err != nil {
		return nil, err
	}
	defer t.streams.Close()
	dir, _ := path.Split("/" + strings.TrimPrefix(begun, "/"))
	files, _, err := t.streams.List(ctx, t.Ref, dir)
	var words []string
	for _, f := range files {
		name := dir + f.Name
		if f.Type == "directory" {
			name += "/"
		}
		if strings.HasPrefix(name, "/"+strings.TrimPrefix(begun, "/")) {
			words = append(words, word(ref+":"+name, f.Type))
		}
	}
	return words, err
}
