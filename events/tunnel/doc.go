// Package tunnel carries many byte streams over one outbound WebSocket: yamux (one window of flow control per stream)
// in binary frames. The agent dials with a [Client] and serves an ordinary [net/http.Handler] on the streams; the server
// accepts with a [Server] and reaches that handler through [Session.DialContext] or [Session.Transport], so a reverse
// proxy, an SPDY or a WebSocket upgrade works through it as through any connection.
//
// What it promises:
//
//   - Order: bytes of one stream stay in order; streams have no order among each other.
//   - A slow stream stops nobody else: what its reader does not take waits in its own window of [Options.Window] bytes,
//     then its writer blocks. Writes are cut into pieces of 64 KiB that take turns, so a bulk stream does not hold up a
//     terminal. A session therefore buffers at most Window times MaxStreams bytes, and next to nothing while readers keep up.
//   - Liveness: both ends send a WebSocket ping every [Options.PingInterval] and drop a link on which nothing arrived for
//     two and a half intervals, or which did not take a frame within [Options.WriteTimeout]. Proxies that count only data
//     as traffic see some every [Options.KeepAlive].
//   - Ownership: who opens a session, accepts a stream or dials one closes it. Closing a session ends its streams with an
//     error on both sides. [Client.Run] returns only after every handler that it started has.
package tunnel
