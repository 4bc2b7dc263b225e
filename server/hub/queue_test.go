package hub

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/droverhq/drover/server/store"
)

// The queue against what it promises, with random events, answers, timeouts and reconnects.
func TestQueueKeepsItsPromises(t *testing.T) {
	for seed := range uint64(300) {
		serial := seed%2 == 0
		t.Run(fmt.Sprintf("seed=%d serial=%v", seed, serial), func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(seed, 1))
			var q queue
			q.connect(serial)
			q.begin()
			var pushed []*pending              // under way
			last := make(map[string]uint64)    // order of the last event pushed, by key
			finished := make(map[string]bool)  // by id
			storing := make([]*pending, 0, 10) // not ready yet
			id := 0
			pump := func() {
				for p := q.next(); p != nil; p = q.next() {
					if finished[p.id] || !p.ready {
						t.Fatalf("%s was pushed, but finished: %v, ready: %v", p.id, finished[p.id], p.ready)
					}
					for _, other := range pushed {
						if serial && p.key != "" && other.key == p.key {
							t.Fatalf("%s and %s are under way for %s", other.id, p.id, p.key)
						}
					}
					if p.key != "" && p.order < last[p.key] {
						t.Fatalf("%s was pushed after a later one of %s", p.id, p.key)
					}
					last[p.key] = p.order
					pushed = append(pushed, p)
				}
				if q.inFlight != len(pushed) {
					t.Fatalf("%d in flight, want %d", q.inFlight, len(pushed))
				}
			}
			finish := func(p *pending) {
				q.remove(p)
				p.resolve(outcome{})
				finished[p.id] = true
				pushed = slices.DeleteFunc(pushed, func(o *pending) bool { return o == p })
				storing = slices.DeleteFunc(storing, func(o *pending) bool { return o == p })
			}
			for range 600 {
				switch n := rnd.IntN(20); {
				case n < 9:
					id++
					p := &pending{id: fmt.Sprint("e", id), home: true, w: &waiter{done: make(chan outcome, 1)}, answered: true}
					if k := rnd.IntN(6); k > 0 {
						p.key = fmt.Sprint("k", k)
					}
					if err := q.add(p); err != nil {
						t.Fatal(err)
					}
					storing = append(storing, p)
				case n < 14:
					for _, p := range storing {
						p.ready, p.seq = true, p.order
					}
					storing = storing[:0]
				case n < 18 && len(pushed) > 0:
					finish(pushed[rnd.IntN(len(pushed))])
				case n == 18 && len(q.events) > 0: // a timeout, wherever the event is
					for _, p := range q.events {
						finish(p)
						break
					}
				case n == 19:
					q.disconnect()
					pushed = nil
					clear(last)
					q.connect(serial)
					q.begin()
				}
				pump()
			}
			for _, p := range storing {
				p.ready, p.seq = true, p.order
			}
			for pump(); len(pushed) > 0; pump() {
				finish(pushed[0])
			}
			if len(finished) != id || len(q.events) != 0 || len(q.keys) != 0 || q.bytes != 0 {
				t.Errorf("%d of %d finished; left: %d events, %d keys, %d bytes", len(finished), id, len(q.events), len(q.keys), q.bytes)
			}
		})
	}
}

func TestWindowsAreKept(t *testing.T) {
	for _, serial := range []bool{false, true} {
		var q queue
		q.connect(serial)
		q.begin()
		for i := range 2000 {
			if err := q.add(&pending{id: fmt.Sprint(i), ready: true, home: true}); err != nil {
				t.Fatal(err)
			}
		}
		n := 0
		for q.next() != nil {
			n++
		}
		want := windowDrover
		if serial {
			want = windowOriginal
		}
		if n != want {
			t.Errorf("serial %v: %d events under way, want %d", serial, n, want)
		}
	}
}

func FuzzReport(f *testing.F) {
	f.Add([]byte(`{"options":{"instances":true},"resources":[{"type":"hostUuid","uuid":"h"},{"type":"instance","uuid":"web","dockerId":"d","state":"running","created":1}]}`))
	f.Add([]byte(`{"options":{},"resources":[{"type":"host","uuid":"h","memory":1e99,"labels":{"a":1},"info":{"osInfo":{"dockerVersion":"x"}}}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := readReport(data)
		if s == nil {
			if err == nil {
				t.Error("neither a report nor an error")
			}
			return
		}
		if s.listed && s.hostUUID == "" {
			t.Error("a list of no host")
		}
		for _, in := range s.instances {
			if in.UUID == "" || len(in.UUID) > maxUUID {
				t.Errorf("instance with uuid %q", in.UUID)
			}
			nativeName(&in)
		}
	})
}

func FuzzInspect(f *testing.F) {
	f.Add([]byte(`{"Name":"/a","Config":{"Image":"i","Env":["RANCHER_UUID=u"]},"NetworkSettings":{"Ports":{"80/tcp":[{"HostPort":"1"}]}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		in := readInspect(data)
		if in == nil {
			return
		}
		var c store.Container
		in.describe(&c, store.ContainerRunning)
		if c.Name != "" || c.Labels != nil {
			t.Error("the name of a container that the server made was changed")
		}
		if id := in.uuid(); id == "" && in.Config.Labels[labelUUID] != "" {
			t.Error("the label was overlooked")
		}
	})
}
