package hub_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/server/hub"
	"github.com/droverhq/drover/server/hub/hubtest"
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
	conn, err := net.Dial("tcp", srv.Address())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = conn.Close() })
	c, err := subscribeLean(conn, srv.Address(), agentID)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// subscribeLean subscribes on a fresh connection.
func subscribeLean(conn net.Conn, host, agentID string) (*lean, error) {
	_, err := fmt.Fprintf(conn, "GET /subscribe?agent=%s&eventNames=ping&eventNames=test.event HTTP/1.1\r\nHost: %s\r\n"+
		"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"+
		"%s: %s\r\n\r\n", agentID, host, wire.HeaderProtocol, wire.Protocol)
	if err != nil {
		return nil, err
	}
	c := &lean{conn: conn, r: bufio.NewReader(conn)}
	res, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		return nil, fmt.Errorf("upgrade: %s", res.Status)
	}
	return c, nil
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
