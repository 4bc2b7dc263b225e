package runtimetest

import (
	"context"
	"strings"
	"time"

	"github.com/droverhq/drover/runtime"
)

// collect reads the notices of one container until its action last, from since on.
func (e *env) collect(since time.Time, id, last string) []runtime.Notice {
	e.Helper()
	var list []runtime.Notice
	for n, err := range e.engine.Watch(e.ctx, since) {
		if err != nil {
			e.Fatalf("Watch: %v", err)
		}
		if n.ID != id {
			continue
		}
		list = append(list, n)
		if n.Action == last {
			return list
		}
	}
	e.Fatalf("the stream ended before %s of %s: %+v", last, id, list)
	return nil
}

// actions are those of a list, without the ones that not every engine tells.
func actions(list []runtime.Notice) string {
	var out []string
	for _, n := range list {
		switch n.Action {
		case "create", "start", "die", "stop", "destroy":
			out = append(out, n.Action)
		}
	}
	return strings.Join(out, " ")
}

var watchTests = []test{
	{"OrderAndSince", func(e *env) {
		began := time.Now()
		spec := e.spec()
		spec.Labels = map[string]string{"a": "1"}
		id := e.start(spec)
		none := time.Duration(0)
		e.must("Stop", e.engine.Stop(e.ctx, id, &none))
		e.must("Remove", e.engine.Remove(e.ctx, id, runtime.RemoveOptions{}))

		list := e.collect(began, id, "destroy")
		if got, want := actions(list), "create start die stop destroy"; got != want {
			e.Errorf("got %s, want %s", got, want)
		}
		for i, n := range list {
			if n.Name != spec.Name || n.Image != spec.Image || n.Labels["a"] != "1" || len(n.Labels) != 1 {
				e.Errorf("notice %d: %+v", i, n)
			}
			if i > 0 && !n.Time.After(list[i-1].Time) {
				e.Errorf("%s at %v is not after %s at %v", n.Action, n.Time, list[i-1].Action, list[i-1].Time)
			}
		}
		// Reopened in the middle: that very notice again, and all after it.
		for i := range list {
			if got, want := actions(e.collect(list[i].Time, id, "destroy")), actions(list[i:]); got != want {
				e.Errorf("since %s: got %q, want %q", list[i].Action, got, want)
			}
			if i < len(list)-1 {
				if got, want := actions(e.collect(list[i].Time.Add(1), id, "destroy")), actions(list[i+1:]); got != want {
					e.Errorf("after %s: got %q, want %q", list[i].Action, got, want)
				}
			}
		}
	}},
	{"Gap", func(e *env) {
		first := e.start(e.spec())
		seen := e.collect(time.Now().Add(-time.Minute), first, "start")
		last := seen[len(seen)-1].Time
		// Nobody watches now.
		id := e.start(e.spec())
		e.must("Remove", e.engine.Remove(e.ctx, id, runtime.RemoveOptions{Force: true}))
		if got, want := actions(e.collect(last, id, "destroy")), "create start die destroy"; got != want {
			e.Errorf("after the gap: got %s, want %s", got, want)
		}
	}},
	{"Live", func(e *env) {
		ctx, cancel := context.WithCancel(e.ctx)
		defer cancel()
		type element struct {
			n   runtime.Notice
			err error
		}
		before := e.start(e.spec())
		elements := make(chan element, 1000)
		stream := e.engine.Watch(ctx, time.Time{}) // from now, though nobody reads yet
		id := e.start(e.spec())
		go func() {
			defer close(elements)
			for n, err := range stream {
				elements <- element{n, err}
			}
		}()
		var list []runtime.Notice
		for len(list) == 0 || list[len(list)-1].Action != "start" {
			select {
			case el := <-elements:
				if el.err != nil {
					e.Fatalf("Watch: %v", el.err)
				}
				if el.n.ID == before {
					e.Errorf("a notice of before: %+v", el.n)
				}
				if el.n.ID == id {
					list = append(list, el.n)
				}
			case <-e.ctx.Done():
				e.Fatal("no notice came")
			}
		}
		if got := actions(list); got != "create start" {
			e.Errorf("got %s", got)
		}
		cancel()
		for el := range elements {
			if el.err != nil {
				e.Errorf("the end of ctx is an error: %v", el.err)
			}
		}
	}},
	{"EarlyBreak", func(e *env) {
		began := time.Now()
		e.create(e.spec())
		for range 3 {
			for _, err := range e.engine.Watch(e.ctx, began) {
				e.noError("Watch", err)
				break
			}
		}
	}},
}
