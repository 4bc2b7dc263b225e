package runtime_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/runtime/fake"
)

// A cache on an engine that restarts, and has forgotten what happened, is right again and told all of it.
func TestCacheOverARestartOfTheEngine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := fake.New(fake.WithImages("sleep:1"))
		defer e.Close()
		create := func(name string) string {
			id, _, err := e.Create(t.Context(), &runtime.ContainerSpec{Name: name, Image: "sleep:1", Cmd: []string{"sleep", "100000"}})
			if err != nil {
				t.Fatal(err)
			}
			if err := e.Start(t.Context(), id); err != nil {
				t.Fatal(err)
			}
			return id
		}
		stays, goes := create("stays"), create("goes")

		c := runtime.NewCache(runtime.CacheConfig{Source: e})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = c.Run(ctx) }()
		defer func() { cancel(); <-done }()
		<-c.Ready()
		sub := c.Subscribe(0)
		defer sub.Close()
		comes := create("comes")
		time.Sleep(time.Second)
		if n := len(c.Snapshot()); n != 3 || e.Calls("List") > 4 {
			t.Errorf("%d containers after %d lists", n, e.Calls("List"))
		}

		e.Down()
		time.Sleep(20 * time.Second)
		if c.Healthy() {
			t.Error("healthy without an engine")
		}
		if calls := e.Calls("List"); calls > 20 {
			t.Errorf("%d lists of an engine that is down", calls)
		}
		e.Up()
		if err := e.Remove(t.Context(), goes, runtime.RemoveOptions{Force: true}); err != nil {
			t.Fatal(err)
		}
		e.Forget()
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if _, ok := c.ByName("goes"); ok || !c.Healthy() || len(c.Snapshot()) != 2 {
			t.Errorf("after the restart: %+v, %v", c.Status(), c.Snapshot())
		}
		var got []string
		for {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			ch, err := sub.Next(ctx)
			cancel()
			if err != nil {
				break
			}
			if !ch.Gap {
				got = append(got, fmt.Sprint(ch.Notice.Action, " ", ch.Notice.Name))
			}
		}
		if !slices.Contains(got, "create comes") || !slices.Contains(got, "start comes") || !slices.Contains(got, "destroy goes") {
			t.Errorf("told %q", got)
		}
		for _, id := range []string{stays, comes} {
			if s, ok := c.Get(id); !ok || s.State != "running" {
				t.Errorf("%s is %+v", id, s)
			}
		}
	})
}
