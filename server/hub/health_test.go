package hub

import (
	"testing"
	"time"

	"github.com/droverhq/drover/server/store"
)

// The states with Rancher's figures, at given times.
func TestHealth(t *testing.T) {
	const hold, after, limit = 2 * time.Second, 180 * time.Second, 6
	start := time.Unix(1_700_000_000, 0)
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	type step struct {
		at   int
		do   string
		want string
	}
	const on, re, off = store.ConnectionOnline, store.ConnectionReconnecting, store.ConnectionDisconnected
	tests := map[string][]step{
		"a short interruption changes nothing": {
			{0, "answer", on}, {10, "lose", on}, {11, "tick", on}, {11, "answer", on}, {60, "tick", on},
		},
		"a long one goes through both": {
			{0, "answer", on}, {10, "lose", on}, {12, "tick", re}, {191, "tick", re}, {192, "tick", off}, {900, "tick", off}, {901, "answer", on},
		},
		"five lost pings are no reason, six are": {
			{0, "answer", on},
			{15, "miss", on},
			{20, "miss", on},
			{25, "miss", on},
			{30, "miss", on},
			{35, "miss", on},
			{36, "answer", on},
			{50, "miss", on},
			{55, "miss", on},
			{60, "miss", on},
			{65, "miss", on},
			{70, "miss", on},
			{75, "miss", re},
			{80, "miss", re},
			{254, "tick", re},
			{255, "tick", off},
		},
		"connected again, but without an answer": {
			{0, "answer", on}, {10, "lose", on}, {10, "lose", on}, {11, "lose", on}, {12, "tick", re}, {13, "answer", on}, {100, "tick", on},
		},
		"never seen": {{0, "tick", off}, {500, "tick", off}},
	}
	for name, steps := range tests {
		t.Run(name, func(t *testing.T) {
			h := health{state: off}
			for _, s := range steps {
				before, changed := h.state, false
				switch s.do {
				case "answer":
					changed = h.answered(at(s.at))
				case "miss":
					changed = h.missed(at(s.at), limit)
				case "lose":
					h.lost(at(s.at))
				case "tick":
					changed = h.tick(at(s.at), hold, after)
				}
				if h.state != s.want {
					t.Fatalf("%d s, %s: %s, want %s", s.at, s.do, h.state, s.want)
				}
				if changed != (before != h.state) {
					t.Errorf("%d s, %s: changed = %v", s.at, s.do, changed)
				}
				if changed && !h.since.Equal(at(s.at)) {
					t.Errorf("%d s, %s: since %v", s.at, s.do, h.since)
				}
			}
		})
	}
}

func TestPingSchedule(t *testing.T) {
	var instances, resources, stats int
	for n := range 48 { // four minutes
		o := everyPing(n)
		for _, c := range []struct {
			on    bool
			count *int
		}{{o.instances, &instances}, {o.resources, &resources}, {o.stats, &stats}} {
			if c.on {
				*c.count++
			}
		}
		if o.stats && !o.resources {
			t.Errorf("ping %d asks for stats without resources, which does nothing", n)
		}
	}
	if o := everyPing(0); !o.instances || !o.resources || !o.stats {
		t.Errorf("the first ping asks for %+v, want everything", o)
	}
	if instances != 16 || resources != 4 || stats != 2 {
		t.Errorf("in 48 pings: %d instances, %d resources, %d stats; want 16, 4, 2", instances, resources, stats)
	}
}

// The pings of many agents are spread over the interval.
func TestWheelSpreadsSessions(t *testing.T) {
	var w wheel
	var sessions []*session
	for range 1000 {
		s := &session{}
		w.add(s)
		sessions = append(sessions, s)
	}
	for i, slot := range w.slots {
		if len(slot) != 1000/wheelSlots {
			t.Errorf("slot %d has %d sessions, want %d", i, len(slot), 1000/wheelSlots)
		}
	}
	for _, s := range sessions {
		w.remove(s)
		w.remove(s)
	}
	if n := len(w.all()); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
}

func TestReplyNamesKnowTheirReplica(t *testing.T) {
	for _, replica := range []uint32{1, 77, 1<<31 - 1} {
		name := replyName(replica)
		if got := replyReplica(name); got != replica {
			t.Errorf("%s: replica %d, want %d", name, got, replica)
		}
	}
	for _, name := range []string{"", "reply.", "reply.x", "reply.-1", "reply.99999999999999999999"} {
		if got := replyReplica(name); got != 0 {
			t.Errorf("%q: replica %d, want none", name, got)
		}
	}
}
