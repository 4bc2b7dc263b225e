package handlers_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/droverhq/drover/handlers"
)

// script writes a configuration script and returns the options that run it.
func script(t *testing.T, text string) handlers.Options {
	t.Helper()
	dir := t.TempDir()
	name := filepath.Join(dir, "config.sh")
	if err := os.WriteFile(name, []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return handlers.Options{Config: handlers.ConfigScript{
		Path: name, Home: dir, AccessKey: "access", SecretKey: "secret", Env: []string{"PATH=/usr/bin:/bin", "X=y"}, SkipItems: []string{"pyagent"},
	}}
}

func TestConfigUpdate(t *testing.T) {
	opts := script(t, `echo "$@|$PWD|$CATTLE_HOME|$CATTLE_ACCESS_KEY|$CATTLE_SECRET_KEY|$X|$HOME" >out`)
	r := newRouter(newStub(), opts)
	ev := with(t, event(t, "config.update"), "items", []any{map[string]any{"name": "a"}, map[string]any{"name": "pyagent"}, map[string]any{"name": "b c"}, map[string]any{}})
	reply := mustServe(t, r, ev)
	if len(reply.Data) != 0 || reply.TransitioningMessage != "" {
		t.Errorf("reply is %+v", reply)
	}
	out := filepath.Join(opts.Config.Home, "out")
	b, err := os.ReadFile(out)
	home := opts.Config.Home
	if want := "a b c|" + home + "|" + home + "|access|secret|y|\n"; err != nil || string(b) != want {
		t.Errorf("the script saw %q, want %q, %v", b, want, err)
	}

	// Nothing to do, nobody to tell, or no script: it is not run, and the answer is good.
	_ = os.Remove(out)
	mustServe(t, r, with(t, ev, "items", []any{}))
	mustServe(t, r, with(t, ev, "items", []any{map[string]any{"name": "pyagent"}}))
	quiet := *ev
	quiet.ReplyTo = ""
	mustServe(t, r, &quiet)
	if _, err := os.Stat(out); err == nil {
		t.Error("the script ran")
	}
	mustServe(t, newRouter(newStub(), handlers.Options{}), ev)
	opts.Config.Path += ".gone"
	mustServe(t, newRouter(newStub(), opts), ev)
}

func TestConfigScriptFails(t *testing.T) {
	for _, c := range []struct {
		script string
		code   int
		output string
		exact  bool
	}{
		{"echo out; echo err >&2; exit 122", 122, "out\nerr\n", true},
		{"kill -9 $$", -1, "", true},
		{"yes | head -c 1000000; echo the end; exit 3", 3, "the end\n", false},
	} {
		log, out := recorder()
		opts := script(t, c.script)
		opts.Log = log
		reply := mustServe(t, newRouter(newStub(), opts), event(t, "config.update"))
		var data struct {
			ExitCode int
			Output   string
		}
		if err := json.Unmarshal(reply.Data, &data); err != nil {
			t.Fatal(err)
		}
		if reply.Transitioning != "no" || reply.TransitioningMessage != "config update failed" || data.ExitCode != c.code {
			t.Errorf("%s: %q %q %s", c.script, reply.Transitioning, reply.TransitioningMessage, reply.Data[:min(200, len(reply.Data))])
		}
		if c.exact && data.Output != c.output || !strings.HasSuffix(data.Output, c.output) || len(data.Output) > 70_000 {
			t.Errorf("%s: output of %d bytes ends in %q", c.script, len(data.Output), data.Output[max(0, len(data.Output)-50):])
		}
		if strings.Contains(out.String(), "secret") {
			t.Errorf("the log tells the key: %s", out)
		}
	}
	opts := script(t, "")
	if err := os.Chmod(opts.Config.Path, 0o600); err != nil {
		t.Fatal(err)
	}
	reply := mustServe(t, newRouter(newStub(), opts), event(t, "config.update"))
	if got := field(t, reply.Data, "exitCode"); got != -1.0 {
		t.Errorf("a script that cannot be run has exit code %v", got)
	}
}

// A script that hangs is ended with all that it started.
func TestConfigScriptHangs(t *testing.T) {
	opts := script(t, "echo $$ >pid; sleep 1000 & sleep 1000")
	opts.Config.Timeout = 300 * time.Millisecond
	reply := mustServe(t, newRouter(newStub(), opts), event(t, "config.update"))
	if got := field(t, reply.Data, "exitCode"); got != -1.0 {
		t.Errorf("reply is %s", reply.Data)
	}

	ctx, cancel := context.WithCancel(t.Context())
	opts = script(t, "trap '' TERM; echo ready >ready; while :; do sleep 1; done")
	done := make(chan struct{})
	go func() {
		defer close(done)
		newRouter(newStub(), opts).Serve(ctx, event(t, "config.update"), nil)
	}()
	for {
		if _, err := os.Stat(filepath.Join(opts.Config.Home, "ready")); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	cancel()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("a script that ignores SIGTERM was not killed")
	}
}

// Two updates never run at the same time.
func TestConfigScriptRunsAlone(t *testing.T) {
	opts := script(t, `mkdir lock || exit 122; sleep 0.2; rmdir lock`)
	r := newRouter(newStub(), opts)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if reply := serve(t, r, event(t, "config.update")); reply.TransitioningMessage != "" {
				t.Errorf("reply is %+v", reply)
			}
		})
	}
	wg.Wait()
}
