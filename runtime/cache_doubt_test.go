package runtime

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestCacheBelievesANoticeMoreThanALateList: dockerd tells that a container died before it cleans up, and lists it as
// running meanwhile.
func TestCacheBelievesANoticeMoreThanALateList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		e.set("a", "running", nil)
		c, settle := cached(t, e)
		<-c.Ready()
		settle()
		sub := c.Subscribe(16)
		defer sub.Close()

		e.tell("a", "die") // and the engine goes on listing it as running
		settle()
		wantStates(t, c, "map[a:exited]")
		e.set("a", "exited", nil)
		settle()
		if s, _ := c.Get("a"); s.State != "exited" || s.Status != "status of exited" {
			t.Errorf("after the engine caught up: %+v", s)
		}
		lists := e.lists.Load()
		settle()
		if e.lists.Load() != lists {
			t.Error("it lists on although the engine agrees")
		}
		var told []string
		for ch, ok := sub.take(); ok; ch, ok = sub.take() {
			told = append(told, ch.Notice.Action)
		}
		if len(told) != 1 || told[0] != "die" {
			t.Errorf("subscribers were told %v, want die alone", told)
		}

		// An engine that means it is believed in the end.
		e.set("a", "running", nil)
		e.tell("a", "start")
		e.set("a", "exited", nil) // without a notice
		time.Sleep(trust)
		settle()
		wantStates(t, c, "map[a:exited]")
	})
}
