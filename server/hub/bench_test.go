package hub_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	goruntime "runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/server/hub"
	"github.com/droverhq/drover/server/hub/hubtest"
	"github.com/droverhq/drover/server/store"
	"github.com/droverhq/drover/server/store/storetest"
)

// A lean client is as cheap as can be, so that a benchmark or a memory figure is the server's: no library, no
// goroutine of its own.
type lean struct {
	conn net.Conn
	r    *bufio.Reader
	out  []byte
}

func dialLean(tb testing.TB, srv *hubtest.Server, agentID string) *lean {
	tb.Helper()
	host := strings.TrimPrefix(srv.URL, "http://")
	conn, err := net.Dial("tcp", host)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = conn.Close() })
	_, err = fmt.Fprintf(conn, "GET /subscribe?agent=%s&eventNames=ping&eventNames=test.event HTTP/1.1\r\nHost: %s\r\n"+
		"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"+
		"%s: %s\r\n\r\n", agentID, host, wire.HeaderProtocol, wire.Protocol)
	if err != nil {
		tb.Fatal(err)
	}
	c := &lean{conn: conn, r: bufio.NewReader(conn)}
	res, err := http.ReadResponse(c.r, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		tb.Fatalf("upgrade: %v, %v", res, err)
	}
	return c
}

// read returns the payload of the next text frame, valid until the next call.
func (c *lean) read() ([]byte, error) {
	for {
		var h [2]byte
		if _, err := io.ReadFull(c.r, h[:]); err != nil {
			return nil, err
		}
		n := int(h[1] & 127)
		switch n {
		case 126:
			var b [2]byte
			if _, err := io.ReadFull(c.r, b[:]); err != nil {
				return nil, err
			}
			n = int(binary.BigEndian.Uint16(b[:]))
		case 127:
			var b [8]byte
			if _, err := io.ReadFull(c.r, b[:]); err != nil {
				return nil, err
			}
			n = int(binary.BigEndian.Uint64(b[:]))
		}
		p := make([]byte, n)
		if _, err := io.ReadFull(c.r, p); err != nil {
			return nil, err
		}
		if h[0]&15 == 1 {
			return p, nil
		}
	}
}

// reply adds the answer to an event to what flush writes.
func (c *lean) reply(ev *wire.Event, data string) {
	payload := fmt.Appendf(nil, `{"name":"%s","previousIds":["%s"],"resourceId":"%s","resourceType":"%s","time":1,"data":%s}`,
		ev.ReplyTo, ev.ID, ev.ResourceID, ev.ResourceType, data)
	c.out = append(c.out, 0x81, 0x80|126, byte(len(payload)>>8), byte(len(payload)), 0, 0, 0, 0) // a mask of zeros
	c.out = append(c.out, payload...)
}

func (c *lean) flush() error {
	_, err := c.conn.Write(c.out)
	c.out = c.out[:0]
	return err
}

// serve answers everything until the connection ends.
func (c *lean) serve() {
	for {
		frame, err := c.read()
		if err != nil {
			return
		}
		if ev, err := wire.DecodeEvent(frame); err == nil && ev.ReplyTo != "" {
			c.reply(ev, `{"options":{}}`)
		}
		if c.r.Buffered() == 0 && len(c.out) > 0 {
			if c.flush() != nil {
				return
			}
		}
	}
}

func benchmarkCalls(b *testing.B, inFlight int, timings hub.Timings, ev wire.Event) {
	srv := hubtest.Start(b, hub.Config{Store: storetest.Open(b), Timings: timings})
	id := srv.Register(b, "k")
	c := dialLean(b, srv, id)
	var wg sync.WaitGroup
	wg.Go(c.serve)
	defer wg.Wait()
	defer func() { _ = c.conn.Close() }()
	b.ReportAllocs()
	b.ResetTimer()
	var callers sync.WaitGroup
	for w := range inFlight {
		callers.Go(func() {
			for i := w; i < b.N; i += inFlight {
				ev := ev
				if _, err := srv.Call(b.Context(), id, &ev, nil); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	callers.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
}

func BenchmarkCallPing1(b *testing.B) {
	benchmarkCalls(b, 1, hub.Timings{}, wire.Event{Name: wire.NamePing, ResourceType: "agent", ResourceID: "1a1", Data: []byte(`{"options":{}}`)})
}

func BenchmarkCallPing32(b *testing.B) {
	benchmarkCalls(b, 32, hub.Timings{}, wire.Event{Name: wire.NamePing, ResourceType: "agent", ResourceID: "1a1", Data: []byte(`{"options":{}}`)})
}

func benchmarkWork(b *testing.B, timings hub.Timings) {
	for _, n := range []int{1, 32} {
		b.Run(fmt.Sprint("inflight=", n), func(b *testing.B) {
			benchmarkCalls(b, n, timings, wire.Event{Name: "test.event", ResourceType: "thing", ResourceID: "1t1", Data: []byte(`{"n":1}`)})
		})
	}
}

// Answered before they need to be stored.
func BenchmarkCallQuick(b *testing.B) { benchmarkWork(b, hub.Timings{StoreAfter: time.Minute}) }

// Stored, pushed, answered and taken out of the queue again.
func BenchmarkCallStored(b *testing.B) { benchmarkWork(b, hub.Timings{StoreAfter: -1}) }

// inUse returns what the program holds after a collection, heap and stacks.
func inUse() uint64 {
	for range 3 {
		goruntime.GC()
	}
	var m goruntime.MemStats
	goruntime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

// idle connects n agents that answer one ping and then are silent, and returns what each costs in bytes: its socket and
// its state in the hub. Its records are not counted, and neither is the kernel's share.
func idle(tb testing.TB, n int) float64 {
	s := storetest.Open(tb)
	srv := hubtest.Start(tb, hub.Config{Store: s, Timings: hub.Timings{Ping: 24 * time.Hour}})
	var ids []string
	for i := range n {
		ids = append(ids, srv.Register(tb, fmt.Sprint("key-", i)))
	}
	dialLean(tb, srv, ids[0]) // warms up
	before := inUse()
	for _, id := range ids[1:] {
		c := dialLean(tb, srv, id)
		for answered := false; !answered; {
			frame, err := c.read()
			if err != nil {
				tb.Fatal(err)
			}
			ev, err := wire.DecodeEvent(frame)
			if err != nil {
				tb.Fatal(err)
			}
			if ev.ReplyTo != "" {
				c.reply(ev, `{"options":{}}`)
				if err := c.flush(); err != nil {
					tb.Fatal(err)
				}
				answered = true
			}
		}
		c.r, c.out = nil, nil
	}
	hubtest.WaitFor(tb, "all to be online", func() bool {
		online := 0
		for _, a := range s.Agents.List() {
			if a.Connection == store.ConnectionOnline {
				online++
			}
		}
		return online == n-1
	})
	return float64(inUse()-before) / float64(n-1)
}

func TestIdleConnectionIsCheap(t *testing.T) {
	each := idle(t, 2000)
	t.Logf("%.1f KB an idle connection", each/1024)
	if each > 12*1024 {
		t.Errorf("an idle connection costs %.1f KB, want at most 12", each/1024)
	}
}

func BenchmarkIdleConnection(b *testing.B) {
	for b.Loop() {
		b.ReportMetric(idle(b, 2000)/1024, "KB/conn")
	}
}

func BenchmarkReport(b *testing.B) {
	// What a ping reply with fifty containers costs when something changed.
	var f bytes.Buffer
	f.WriteString(`{"options":{"instances":true},"resources":[{"type":"hostUuid","uuid":"h-1"}`)
	for i := range 50 {
		fmt.Fprintf(&f, `,{"type":"instance","uuid":"c%d","state":"running","dockerId":"%064d","image":"busybox","created":1700000000,"labels":{"a":"b"},"systemContainer":""}`, i, i)
	}
	f.WriteString(`]}`)
	hub.BenchReport(b, f.Bytes())
}
