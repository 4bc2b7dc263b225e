package tunnel

import (
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// Subprotocol is the WebSocket subprotocol of the tunnel.
const Subprotocol = "v1.tunnel.drover"

// A Server accepts tunnels. One serves any number of them; they share its buffers.
type Server struct {
	opts     Options
	upgrader websocket.Upgrader
	buffers  sync.Pool
}

// NewServer returns a server whose sessions have opts.
func NewServer(opts Options) (*Server, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Server{opts: opts}
	s.upgrader = websocket.Upgrader{
		HandshakeTimeout: opts.WriteTimeout,
		WriteBufferSize:  frameBuffer,
		WriteBufferPool:  &s.buffers,
		Subprotocols:     []string{Subprotocol},
		// Agents send no Origin; a browser has no business here.
		CheckOrigin: func(r *http.Request) bool { return r.Header.Get("Origin") == "" },
	}
	return s, nil
}

// Accept upgrades the request of an agent, which the caller has authenticated, and returns the session; the caller
// closes it. header is added to the answer and may be nil. If the upgrade fails, the client has been told why.
func (s *Server) Accept(w http.ResponseWriter, r *http.Request, header http.Header) (*Session, error) {
	ws, err := s.upgrader.Upgrade(w, r, header)
	if err != nil {
		return nil, fmt.Errorf("tunnel: upgrade: %w", err)
	}
	// net/http may have left the deadlines of the request.
	_ = ws.NetConn().SetDeadline(time.Time{})
	return newSession(ws, s.opts, false)
}
