package hub_test

import (
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/server/hub/hubtest"
	"github.com/gorilla/websocket"
)

// A raw is a bare connection that does what the test says.
type raw struct {
	t    *testing.T
	conn *websocket.Conn
	res  *http.Response
	mu   sync.Mutex // writes
}

func dial(t *testing.T, srv *hubtest.Server, agentID string, drover bool) *raw {
	t.Helper()
	c := tryDial(t, srv, agentID, drover)
	if c.conn == nil {
		t.Fatalf("dial: %v", c.res)
	}
	return c
}

// tryDial may be refused: conn is nil then.
func tryDial(t *testing.T, srv *hubtest.Server, agentID string, drover bool) *raw {
	t.Helper()
	header := http.Header{}
	if drover {
		header.Set(wire.HeaderProtocol, wire.Protocol)
		header.Set(wire.HeaderVersion, "raw")
	}
	conn, res, err := websocket.DefaultDialer.DialContext(t.Context(), srv.Subscribe(agentID, "ping", "test.event"), header)
	if err != nil {
		if res == nil {
			t.Fatalf("dial: %v", err)
		}
		return &raw{t: t, res: res}
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &raw{t: t, conn: conn, res: res}
}

// read returns the next frame.
func (c *raw) read() []byte {
	_ = c.conn.SetReadDeadline(time.Now().Add(hubtest.Patience))
	_, frame, err := c.conn.ReadMessage()
	if err != nil {
		c.t.Errorf("read: %v", err)
		c.t.FailNow()
	}
	return frame
}

// next returns the next event that is no ping; pings are answered.
func (c *raw) next() *wire.Event {
	for {
		ev, err := wire.DecodeEvent(c.read())
		if err != nil {
			c.t.Errorf("frame: %v", err)
		}
		if ev.Name != wire.NamePing {
			return ev
		}
		if ev.ReplyTo != "" {
			c.reply(ev, []byte(`{"options":{}}`))
		}
	}
}

func (c *raw) reply(ev *wire.Event, data []byte) {
	r, err := wire.NewReply(ev, data)
	if err != nil {
		c.t.Error(err)
		return
	}
	c.write(wire.AppendReply(nil, r))
}

func (c *raw) write(frame []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.conn.WriteMessage(websocket.TextMessage, frame); err != nil {
		c.t.Errorf("write: %v", err)
	}
}
