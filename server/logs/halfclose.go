package logs

import (
	"bufio"
	"errors"
	"net"
	"net/http"
	"time"
)

// lastWords is how long a caller may go on sending after the host has ended its side of an upgraded connection.
const lastWords = 5 * time.Second

// boundHalfClose makes an upgraded connection end soon after the host has ended it: a caller that neither reads nor
// closes would hold it, and whoever waits for it, for ever.
func boundHalfClose(w http.ResponseWriter) http.ResponseWriter { return boundWriter{w} }

type boundWriter struct{ http.ResponseWriter }

// Unwrap lets [http.ResponseController] find what the writer can do beside.
func (w boundWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Hijack implements [http.Hijacker].
func (w boundWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	return boundConn{conn}, rw, nil
}

// A boundConn bounds what follows its CloseWrite.
type boundConn struct{ net.Conn }

// CloseWrite ends this side of the connection, and soon the other one.
func (c boundConn) CloseWrite() error {
	err := c.SetReadDeadline(time.Now().Add(lastWords))
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return errors.Join(err, half.CloseWrite())
	}
	return errors.Join(err, c.Close())
}
