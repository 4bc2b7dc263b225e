package tunnel

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"log"
	"time"

	"github.com/hashicorp/yamux"
	"github.com/sirupsen/logrus"
)

// Options tune a session; both ends take them and need not agree. The zero value is good for both.
type Options struct {
	// Window is how many bytes of one stream may be under way and unread: 256 KiB to 16 MiB, 1 MiB if 0.
	Window int
	// MaxStreams is how many streams may be open in each direction: 512 if 0. A dial beyond it waits for its ctx; a peer
	// that opens more has them closed.
	MaxStreams int
	// PingInterval is the time between WebSocket pings, 10 s if 0.
	PingInterval time.Duration
	// KeepAlive is the time between data frames on an otherwise idle link, 20 s if 0. Some proxies do not count pings.
	KeepAlive time.Duration
	// WriteTimeout is how long the link may take for one frame of at most 64 KiB, 30 s if 0.
	WriteTimeout time.Duration
	// Log may be nil.
	Log logrus.FieldLogger
}

const (
	chunk = 64<<10 + 256 // longest data frame: 64 KiB, and what protocols on a stream put before that
	// frameBuffer holds a whole frame: yamux header, payload, and room for gorilla's frame header.
	frameBuffer = chunk + 64
	// closeWait bounds how long the peer of a closed stream may go on writing to it before it is reset.
	closeWait = 5 * time.Second
	minWindow = 256 << 10
	maxWindow = 16 << 20
	// openLimit bounds the streams that are opened and not yet accepted.
	openLimit = 256
)

func (o Options) withDefaults() (Options, error) {
	o.Window = cmp.Or(o.Window, 1<<20)
	o.MaxStreams = cmp.Or(o.MaxStreams, 512)
	o.PingInterval = cmp.Or(o.PingInterval, 10*time.Second)
	o.KeepAlive = cmp.Or(o.KeepAlive, 20*time.Second)
	o.WriteTimeout = cmp.Or(o.WriteTimeout, 30*time.Second)
	if o.Log == nil {
		nop := logrus.New()
		nop.SetOutput(io.Discard)
		o.Log = nop
	}
	switch {
	case o.Window < minWindow || o.Window > maxWindow:
		return o, fmt.Errorf("tunnel: window of %d bytes: want %d to %d", o.Window, minWindow, maxWindow)
	case o.MaxStreams < 1:
		return o, fmt.Errorf("tunnel: at most %d streams: want 1 or more", o.MaxStreams)
	case o.PingInterval < 0 || o.KeepAlive < 0 || o.WriteTimeout < 0:
		return o, fmt.Errorf("tunnel: negative interval")
	}
	return o, nil
}

// silence is how long nothing may arrive.
func (o Options) silence() time.Duration { return o.PingInterval * 5 / 2 }

func (o Options) mux() *yamux.Config {
	return &yamux.Config{
		AcceptBacklog:     openLimit,
		EnableKeepAlive:   true,
		KeepAliveInterval: o.KeepAlive,
		// Covers the wait for a frame's turn among all streams, and the answer to a keep-alive. A dead link is found by
		// the read and write deadlines of the socket, long before.
		ConnectionWriteTimeout: 2 * o.WriteTimeout,
		MaxStreamWindowSize:    uint32(o.Window),
		StreamOpenTimeout:      2 * o.WriteTimeout,
		StreamCloseTimeout:     closeWait,
		Logger:                 muxLog{o.Log},
	}
}

// muxLog takes yamux's remarks, which are about single frames, at debug level.
type muxLog struct{ log logrus.FieldLogger }

func (l muxLog) Print(v ...any)            { l.log.Debug(v...) }
func (l muxLog) Printf(f string, v ...any) { l.log.Debugf(f, v...) }
func (l muxLog) Println(v ...any)          { l.log.Debugln(v...) }

// stdLog is a standard logger for net/http that ends in log, at debug level.
func stdLog(l logrus.FieldLogger) *log.Logger { return log.New(lineLog{l}, "", 0) }

type lineLog struct{ log logrus.FieldLogger }

func (l lineLog) Write(p []byte) (int, error) {
	l.log.Debug(string(bytes.TrimRight(p, "\n")))
	return len(p), nil
}
