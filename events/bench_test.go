package events_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/droverhq/drover/events"
	"github.com/droverhq/drover/events/eventstest"
	"github.com/droverhq/drover/events/wire"
)

// benchServer is as little of a Drover server as there can be: it keeps inFlight events under way and hears the replies.
type benchServer struct {
	http *httptest.Server
	ws   chan *websocket.Conn
}

func newBenchServer(b *testing.B) *benchServer {
	s := &benchServer{ws: make(chan *websocket.Conn, 1)}
	s.http = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		up := websocket.Upgrader{ReadBufferSize: 16 << 10, WriteBufferSize: 16 << 10}
		ws, err := up.Upgrade(w, r, http.Header{wire.HeaderProtocol: {wire.Protocol}})
		if err != nil {
			return
		}
		s.ws <- ws
	}))
	b.Cleanup(func() { s.http.Close() })
	return s
}

func (s *benchServer) agent(b *testing.B, handlers map[string]events.HandlerFunc) *websocket.Conn {
	c, err := events.New(events.Config{URL: s.http.URL + "/v1", Router: routes(handlers), Journal: b.TempDir() + "/journal.db", Log: quiet()})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = c.Run(ctx) }()
	ws := <-s.ws
	b.Cleanup(func() { cancel(); _ = ws.Close(); <-done })
	return ws
}

// roundTrips keeps inFlight events of one name under way, b.N in all, and reports rate and p50.
func roundTrips(b *testing.B, ws *websocket.Conn, name string, inFlight int, ack bool) {
	b.ReportAllocs()
	sentAt := make([]time.Time, inFlight)
	took := make([]time.Duration, 0, b.N)
	send := func(n, slot int) {
		frame := fmt.Appendf(nil, `{"id":"%d-%d","name":%q,"replyTo":"reply.%d","resourceId":"1ihm%d","resourceType":"instanceHostMap","time":1700000000123,`+
			`"timeoutMillis":45000,"data":{"options":{},"resources":[]}}`, slot, n, name, n, slot)
		sentAt[slot] = time.Now()
		if err := ws.WriteMessage(websocket.TextMessage, frame); err != nil {
			b.Fatal(err)
		}
	}
	b.ResetTimer()
	n := 0
	for slot := range min(inFlight, b.N) {
		send(n, slot)
		n++
	}
	var acks []string
	for range b.N {
		_, frame, err := ws.ReadMessage()
		if err != nil {
			b.Fatal(err)
		}
		at := strings.Index(string(frame[:min(len(frame), 200)]), `"previousIds":["`)
		var slot, nth int
		if _, err := fmt.Sscanf(string(frame[at+16:at+40]), "%d-%d", &slot, &nth); err != nil {
			b.Fatalf("%s: %v", frame[:100], err)
		}
		took = append(took, time.Since(sentAt[slot]))
		if ack {
			if acks = append(acks, fmt.Sprintf("%d-%d", slot, nth)); len(acks) == 16 || inFlight == 1 {
				if err := ws.WriteMessage(websocket.TextMessage, wire.AppendAck(nil, wire.Ack{IDs: acks})); err != nil {
					b.Fatal(err)
				}
				acks = acks[:0]
			}
		}
		if n < b.N {
			send(n, slot)
			n++
		}
	}
	b.StopTimer()
	reportLatency(b, took)
}

func reportLatency(b *testing.B, took []time.Duration) {
	b.Helper()
	hist := slices.Clone(took)
	slices.Sort(hist)
	b.ReportMetric(float64(hist[len(hist)/2].Microseconds()), "p50-us")
	b.ReportMetric(float64(hist[len(hist)*99/100].Microseconds()), "p99-us")
	b.ReportMetric(float64(len(took))/b.Elapsed().Seconds(), "events/s")
}

func BenchmarkPingRoundTrip1(b *testing.B) {
	roundTrips(b, newBenchServer(b).agent(b, plain), "ping", 1, false)
}

func BenchmarkPingRoundTrip32(b *testing.B) {
	roundTrips(b, newBenchServer(b).agent(b, plain), "ping", 32, false)
}

// relay answers as an inspect does whose engine takes no time.
func relay(size int) map[string]events.HandlerFunc {
	doc := json.RawMessage(`{"a":"` + strings.Repeat("x", size) + `"}`)
	return map[string]events.HandlerFunc{"inspect": func(context.Context, *wire.Event, events.Progress) (any, error) { return doc, nil }}
}

func BenchmarkInspectRoundTrip(b *testing.B) {
	for _, inFlight := range []int{1, 8, 32} {
		b.Run(fmt.Sprint(inFlight), func(b *testing.B) {
			roundTrips(b, newBenchServer(b).agent(b, relay(6<<10)), "inspect", inFlight, true)
		})
	}
}

// BenchmarkRancherRoundTrip answers by POST.
func BenchmarkRancherRoundTrip(b *testing.B) {
	for _, name := range []string{"ping", "inspect"} {
		b.Run(name, func(b *testing.B) {
			srv := eventstest.NewServer(b, eventstest.Options{})
			h := relay(6 << 10)
			h["ping"] = pong
			start(b, srv, routes(h), nil)
			se, err := srv.Next(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			var next atomic.Int64
			b.ResetTimer()
			var wg sync.WaitGroup
			for range 32 {
				wg.Go(func() {
					for next.Add(1) <= int64(b.N) {
						ev := newEvent(name, "", "")
						if err := se.Push(b.Context(), ev); err != nil {
							b.Error(err)
							return
						}
						if _, err := srv.Answer(b.Context(), ev.ID); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

// BenchmarkBurst pushes 10,000 events of 1 KiB at once to an agent in a process of its own and weighs it.
func BenchmarkBurst(b *testing.B) {
	for _, size := range []int{200, 6 << 10} {
		b.Run(fmt.Sprintf("reply=%d", size), func(b *testing.B) {
			for b.Loop() {
				srv := eventstest.NewServer(b, eventstest.Options{Drover: true})
				agent := startChild(b, childConfig{URL: srv.URL(), Journal: b.TempDir() + "/journal.db", Reply: size})
				se, err := srv.Next(b.Context())
				if err != nil {
					b.Fatal(err)
				}
				idle, _ := agent.rss(b)
				began := time.Now()
				for i := range manyEvents {
					if err := se.Push(b.Context(), newEvent("inspect", fmt.Sprint(i%manyResources), `{"a":"`+strings.Repeat("x", 900)+`"}`)); err != nil {
						b.Fatal(err)
					}
				}
				if err := srv.WaitAnswered(b.Context(), manyEvents); err != nil {
					b.Fatal(err)
				}
				took := time.Since(began)
				_, peak := agent.rss(b)
				b.ReportMetric(took.Seconds(), "s")
				b.ReportMetric(float64(idle)/1e6, "idle-MB")
				b.ReportMetric(float64(peak)/1e6, "peak-MB")
				b.ReportMetric(float64(srv.Duplicates()), "duplicates")
				agent.end(syscall.SIGTERM)
			}
		})
	}
}

// BenchmarkSubscribe measures from Run to the server's first frame of the subscription, with a journal that is full of
// what was answered before.
func BenchmarkSubscribe(b *testing.B) {
	srv := eventstest.NewServer(b, eventstest.Options{Drover: true, KeepAlive: -1})
	journal := b.TempDir() + "/journal.db"
	with := func(c *events.Config) { c.Journal = journal }
	a := start(b, srv, routes(relay(200)), with)
	se, err := srv.Next(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	for range 2 * manyEvents {
		if err := se.Push(b.Context(), newEvent("inspect", "", "")); err != nil {
			b.Fatal(err)
		}
	}
	if err := srv.WaitAnswered(b.Context(), 2*manyEvents); err != nil {
		b.Fatal(err)
	}
	a.stop(b)
	var took, answered []time.Duration
	for b.Loop() {
		began := time.Now()
		a := start(b, srv, routes(plain), with)
		if _, err := srv.Next(b.Context()); err != nil {
			b.Fatal(err)
		}
		subscribed := time.Since(began)
		if _, err := srv.Call(b.Context(), newEvent("echo", "", "")); err != nil {
			b.Fatal(err)
		}
		took = append(took, subscribed)
		answered = append(answered, time.Since(began))
		b.StopTimer()
		a.stop(b)
		b.StartTimer()
	}
	slices.Sort(took)
	slices.Sort(answered)
	b.ReportMetric(float64(answered[len(answered)/2].Microseconds()), "answered-p50-us")
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "subscribed-p50-us")
}

// BenchmarkReconnect measures from the loss of a connection to the next one, less the random delay.
func BenchmarkReconnect(b *testing.B) {
	srv := eventstest.NewServer(b, eventstest.Options{Drover: true})
	start(b, srv, routes(plain), func(c *events.Config) { c.FirstDelay, c.MaxDelay = time.Microsecond, time.Millisecond })
	for b.Loop() {
		se, err := srv.Next(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		se.Cut()
	}
}
