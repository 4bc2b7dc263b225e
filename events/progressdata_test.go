package events

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/droverhq/drover/events/wire"
)

// 10,000 reports within 9 s cost at most 4 replies a second, the last one wins, and data comes along.
func TestProgressWithData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var sent []*wire.Reply
		ev := &wire.Event{ID: "1", Name: "image.push", ReplyTo: "reply.1"}
		p := &progress{ev: ev, send: func(_ *wire.Event, r *wire.Reply) {
			mu.Lock()
			defer mu.Unlock()
			sent = append(sent, r)
		}}
		var handed DataProgress = &extending{m: withMovingDeadline(t.Context(), time.Now().Add(time.Minute), time.Minute, time.Hour), p: p}
		for i := range 10_000 {
			handed.ReportData("pushing", i/100, map[string]int{"current": i})
			time.Sleep(900 * time.Microsecond)
		}
		time.Sleep(time.Second)
		handed.ReportData("pushing", 99, func() {}) // no JSON: the line goes out without it
		time.Sleep(time.Second)
		p.finish()
		handed.(*extending).m.stop()
		mu.Lock()
		defer mu.Unlock()
		if len(sent) < 20 || len(sent) > 40 {
			t.Errorf("%d replies", len(sent))
		}
		if last := sent[len(sent)-2]; string(last.Data) != `{"current":9999}` || last.Transitioning != wire.TransitioningYes || last.Final() {
			t.Errorf("the last one is %+v", last)
		}
		if last := sent[len(sent)-1]; last.Data != nil || last.TransitioningProgress != 99 {
			t.Errorf("without data: %+v", last)
		}
	})
}
