package docker

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"
)

// transport returns a connection pool to the daemon. A tracked one moves the engine's epoch when a connection is lost.
// No proxy is used: the daemon is the host's own, and the environment is not this package's to read.
func (e *Engine) transport(idle int, tracked bool) *http.Transport {
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	network, address := e.host.Scheme, e.host.Host
	return &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, network, address)
			if err != nil {
				e.epoch.Add(1)
				return nil, err
			}
			if !tracked {
				return conn, nil
			}
			e.open.Add(1)
			return &trackedConn{Conn: conn, engine: e}, nil
		},
		TLSClientConfig:     e.cfg.TLS,
		TLSHandshakeTimeout: 10 * time.Second,
		MaxIdleConns:        idle,
		MaxIdleConnsPerHost: idle, // Go's default of 2 would dial again for every third caller
		IdleConnTimeout:     90 * time.Second,
		DisableCompression:  true,
		ReadBufferSize:      8 << 10,
		WriteBufferSize:     8 << 10,
	}
}

// A trackedConn tells its engine when the daemon closed it: that is how a restart is noticed before the next call.
type trackedConn struct {
	net.Conn
	engine *Engine
	once   sync.Once
}

func (c *trackedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		c.engine.epoch.Add(1)
	}
	return n, err
}

func (c *trackedConn) Close() error {
	c.once.Do(func() { c.engine.open.Add(-1) })
	return c.Conn.Close()
}
