package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/droverhq/drover/cli/client"
	"github.com/droverhq/drover/cli/ui"
	"github.com/droverhq/drover/runtime/pods"
	"github.com/droverhq/drover/service/node"
)

// podView is a pod as programs see it: docs/pods.md, and which host it is on.
type podView struct {
	Host   string `json:"host"`
	HostID string `json:"hostId"`
	pods.View
}

// podChange is one line of --watch.
type podChange struct {
	Type string  `json:"type"` // added, modified, removed
	Pod  podView `json:"pod"`
}

// podHosts is how many hosts are asked at once.
const podHosts = 16

func (a *app) podsCommand() *cobra.Command {
	var host, namespace string
	var watch bool
	cmd := &cobra.Command{
		Use:   "pods [NAMESPACE/POD]",
		Short: "List the pods of Kubernetes nodes",
		Long: `Lists the pods of the hosts that know their pods, which are those that run 'drover node', or an agent with a CRI runtime or
--pods=on. With a name, it shows the containers of that pod. --watch goes on with what becomes of them.`,
		Example: `  drover pods
  drover pods --host node-1 --namespace shop
  drover pods shop/cart-0
  drover pods --watch --output json`,
		Args: usage(cobra.MaximumNArgs(1)),
		RunE: a.operate(func(ctx context.Context, c *client.Client, args []string) error {
			hosts, err := a.podHosts(ctx, c, host)
			if err != nil {
				return err
			}
			q := url.Values{}
			if namespace != "" {
				q.Set("namespace", namespace)
			}
			switch {
			case len(args) == 1 && watch:
				return usagef("--watch is for lists")
			case len(args) == 1:
				return a.onePod(ctx, c, hosts, args[0])
			case watch:
				return a.watchPods(ctx, c, hosts, q, host != "")
			}
			return a.listPods(ctx, c, hosts, q, host != "")
		}),
	}
	f := cmd.Flags()
	f.StringVar(&host, "host", "", "of this host only")
	f.StringVarP(&namespace, "namespace", "n", "", "of this namespace only")
	f.BoolVarP(&watch, "watch", "w", false, "go on with what changes, until it is interrupted")
	_ = cmd.RegisterFlagCompletionFunc("host", a.completeHosts)
	return cmd
}

// podHosts returns the named host, or all that are connected.
func (a *app) podHosts(ctx context.Context, c *client.Client, name string) ([]client.Host, error) {
	if name != "" {
		h, err := c.Host(ctx, name)
		if err != nil {
			return nil, err
		}
		return []client.Host{*h}, nil
	}
	hosts, err := c.Hosts(ctx)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(hosts, func(h client.Host) bool { return h.Connection != "online" }), nil
}

func podPath(hostID, rest string) string {
	return "hosts/" + url.PathEscape(hostID) + "/proxy/pods" + rest
}

// knowsNoPods tells whether a host serves no pod map.
func knowsNoPods(err error) bool { return errors.Is(err, client.ErrNotFound) }

// podsOf lists the pods of all hosts. A host that knows none is left out; one that fails is told of, unless all do.
func (a *app) podsOf(ctx context.Context, c *client.Client, hosts []client.Host, q url.Values, named bool) ([]podView, error) {
	type result struct {
		list node.Collection
		err  error
	}
	results := make([]result, len(hosts))
	slots := make(chan struct{}, podHosts)
	var wait sync.WaitGroup
	for i := range hosts {
		slots <- struct{}{}
		wait.Go(func() {
			defer func() { <-slots }()
			results[i].err = c.Do(ctx, http.MethodGet, podPath(hosts[i].ID, "?"+q.Encode()), nil, &results[i].list)
		})
	}
	wait.Wait()
	all := []podView{}
	answered := false
	var failed error
	for i, r := range results {
		switch {
		case r.err == nil:
			answered = true
			for _, p := range r.list.Data {
				all = append(all, podView{Host: hosts[i].DisplayName(), HostID: hosts[i].ID, View: p})
			}
		case knowsNoPods(r.err) && named:
			return nil, fmt.Errorf("host %s knows no pods: start its agent as 'drover node', or with --pods=on", hosts[i].DisplayName())
		case !knowsNoPods(r.err):
			failed = fmt.Errorf("host %s: %w", hosts[i].DisplayName(), r.err)
			a.note("%v", failed)
		}
	}
	if !answered && failed != nil {
		return nil, failed
	}
	return all, nil
}

func (a *app) listPods(ctx context.Context, c *client.Client, hosts []client.Host, q url.Values, named bool) error {
	all, err := a.podsOf(ctx, c, hosts, q, named)
	if err != nil {
		return err
	}
	return a.out.Print(all, func() error {
		t := podTable()
		for i := range all {
			a.podRow(t, &all[i])
		}
		return a.out.Table(t)
	})
}

func podTable() *ui.Table {
	return &ui.Table{Header: []string{"NAMESPACE", "NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "HOST"}}
}

func (a *app) podRow(t *ui.Table, p *podView) {
	running, count, restarts := 0, 0, 0
	for i := range p.Containers {
		c := &p.Containers[i]
		if c.Kind != "container" {
			continue
		}
		count++
		restarts += c.RestartCount
		if c.Running {
			running++
		}
	}
	age := ""
	if p.Created != nil {
		age = a.out.Ago(*p.Created)
	}
	t.Row(ui.Text(p.Namespace), ui.Cell{Text: p.Name, Style: ui.Strong}, ui.Text(fmt.Sprintf("%d/%d", running, count)),
		ui.Cell{Text: p.Phase, Style: stateStyle(strings.ToLower(p.Phase))}, ui.Text(fmt.Sprint(restarts)), ui.Text(age), ui.Text(p.IP), ui.Text(p.Host))
}

// onePod shows the containers of one pod.
func (a *app) onePod(ctx context.Context, c *client.Client, hosts []client.Host, name string) error {
	namespace, pod, ok := strings.Cut(name, "/")
	if !ok || namespace == "" || pod == "" || strings.Contains(pod, "/") {
		return usagef("%q is no pod: want NAMESPACE/POD", name)
	}
	var missing error
	for i := range hosts {
		var v pods.View
		err := c.Do(ctx, http.MethodGet, podPath(hosts[i].ID, "/"+url.PathEscape(namespace)+"/"+url.PathEscape(pod)), nil, &v)
		switch {
		case err == nil:
			return a.showPod(podView{Host: hosts[i].DisplayName(), HostID: hosts[i].ID, View: v})
		case !errors.Is(err, client.ErrNotFound):
			missing = errors.Join(missing, fmt.Errorf("host %s: %w", hosts[i].DisplayName(), err))
		}
	}
	if missing != nil {
		return missing
	}
	return fmt.Errorf("pod %s: %w", name, client.ErrNotFound)
}

func (a *app) showPod(p podView) error {
	return a.out.Print(p, func() error {
		t := &ui.Table{Header: []string{"CONTAINER", "ID", "KIND", "STATE", "RESTARTS", "IMAGE", "ENGINE", "HOST"}}
		for i := range p.Containers {
			c := &p.Containers[i]
			kind := c.Kind
			if c.Role == "sidecar" {
				kind = c.Role
			}
			t.Row(ui.Cell{Text: c.Name, Style: ui.Strong}, ui.Text(ui.Short(c.ID)), ui.Text(kind), ui.Cell{Text: c.State, Style: stateStyle(c.State)},
				ui.Text(fmt.Sprint(c.RestartCount)), ui.Text(c.Image), ui.Text(c.Engine), ui.Text(p.Host))
		}
		return a.out.Table(t)
	})
}

// watchPods prints what is there and what becomes of it, a line a change. A host whose stream breaks is asked again.
func (a *app) watchPods(ctx context.Context, c *client.Client, hosts []client.Host, q url.Values, named bool) error {
	if _, err := a.podsOf(ctx, c, hosts, q, named); err != nil { // what is wrong with all of them is said at once
		return err
	}
	q.Set("watch", "true")
	changes := make(chan podChange)
	var wait sync.WaitGroup
	defer wait.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for i := range hosts {
		wait.Go(func() { a.followPods(ctx, c, &hosts[i], q, changes) })
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case ch := <-changes:
			if a.out.Structured() {
				if err := a.out.Print(ch, nil); err != nil {
					return err
				}
				continue
			}
			running := 0
			for i := range ch.Pod.Containers {
				if ch.Pod.Containers[i].Running && ch.Pod.Containers[i].Kind == "container" {
					running++
				}
			}
			if _, err := fmt.Fprintf(a.env.Stdout, "%s  %-8s  %s/%s  %s  %d running  %s\n", time.Now().Format(time.TimeOnly), ch.Type,
				ui.Clean(ch.Pod.Namespace), ui.Clean(ch.Pod.Name), ui.Clean(ch.Pod.Phase), running, ui.Clean(ch.Pod.Host)); err != nil {
				return err
			}
		}
	}
}

// podRetry is the time between two attempts to follow a host.
const podRetry = 2 * time.Second

func (a *app) followPods(ctx context.Context, c *client.Client, h *client.Host, q url.Values, changes chan<- podChange) {
	seen := map[string]string{} // by uid and name: what was told last
	for ctx.Err() == nil {
		err := a.readPods(ctx, c, h, q, seen, changes)
		if ctx.Err() != nil || knowsNoPods(err) {
			return
		}
		a.note("host %s: %v; trying again", h.DisplayName(), err)
		wait := time.NewTimer(podRetry)
		select {
		case <-ctx.Done():
		case <-wait.C:
		}
		wait.Stop()
	}
}

func (a *app) readPods(ctx context.Context, c *client.Client, h *client.Host, q url.Values, seen map[string]string, changes chan<- podChange) error {
	resp, err := c.Open(ctx, podPath(h.ID, "?"+q.Encode()), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(make([]byte, 64<<10), 16<<20)
	for lines.Scan() {
		var ch node.Change
		if err := json.Unmarshal(lines.Bytes(), &ch); err != nil {
			return fmt.Errorf("a line that is no change: %w", err)
		}
		if ch.Pod == nil {
			continue
		}
		key, text := ch.Pod.UID+"/"+ch.Pod.Namespace+"/"+ch.Pod.Name, ch.Type+string(lines.Bytes())
		if seen[key] == text {
			continue // told before the stream broke
		}
		seen[key] = text
		if ch.Type == "removed" {
			delete(seen, key)
		}
		select {
		case changes <- podChange{ch.Type, podView{Host: h.DisplayName(), HostID: h.ID, View: *ch.Pod}}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return errors.Join(errors.New("the stream ended"), lines.Err())
}
