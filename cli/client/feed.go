package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/gorilla/websocket"
)

// A Change is one message of the server's change feed.
type Change struct {
	Name         string `json:"name"`
	ResourceType string `json:"resourceType"`
	ResourceID   string `json:"resourceId"`
	Time         int64  `json:"time"` // milliseconds since the epoch
	Data         struct {
		Resource json.RawMessage `json:"resource"`
	} `json:"data"`
}

// silence is how long a feed may be quiet: the server sends a ping each 5 s.
const silence = 30 * time.Second

// Watch subscribes to changes and calls each for every one, in the server's order, until ctx ends (nil), each returns
// an error (that error) or the connection is lost. ready is called once the subscription stands.
func (c *Client) Watch(ctx context.Context, ready func(), each func(*Change) error) error {
	header := http.Header{}
	c.identify(header)
	d := websocket.Dialer{Proxy: c.cfg.Proxy, TLSClientConfig: c.tls, HandshakeTimeout: 15 * time.Second}
	target := "ws" + strings.TrimPrefix(c.base, "http") + "/subscribe?eventNames=resource.change"
	conn, resp, err := d.DialContext(ctx, target, header)
	if resp != nil {
		defer resp.Body.Close()
	}
	switch {
	case errors.Is(err, websocket.ErrBadHandshake) && resp != nil:
		return fmt.Errorf("subscribe at %s: %w", c.cfg.Server, apiError(resp.StatusCode, nil))
	case err != nil:
		return c.explain(ctx, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() {
		_ = conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(time.Second))
		conn.Close()
	})
	defer stop()
	conn.SetReadLimit(16 << 20)
	ready()
	for {
		if err := conn.SetReadDeadline(time.Now().Add(silence)); err != nil {
			return c.explain(ctx, err)
		}
		_, frame, err := conn.ReadMessage()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return c.explain(ctx, err)
		}
		var change Change
		if json.Unmarshal(frame, &change) != nil || change.Name != "resource.change" {
			continue
		}
		if err := each(&change); err != nil {
			return err
		}
	}
}
