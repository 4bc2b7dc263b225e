// Package remote serves the streams of a process to a viewer in Kubernetes' channel protocols, v1 to v5.channel.k8s.io
// over SPDY/3.1 and over WebSocket, as a kubelet does for exec and attach.
//
// [Accept] upgrades a request to a [Session]: standard input, output and error and the terminal's sizes, as ordinary
// readers, writers and a channel. What it promises:
//
//   - The session's Context ends as soon as the viewer is gone, whether it said goodbye or not.
//   - A viewer that does not read blocks the writer, and nobody else. At most 256 KiB of its input wait for the process.
//   - [Session.Finish] ends a session in the order that loses nothing: input is no longer passed on but still read, the
//     status is written after all output, the outputs are closed, and the connection stays until the viewer has
//     closed it, for a bounded time. Finish must be called, once; it waits for the session's goroutines.
//
// A [Keeper] serves viewers that speak package resume besides: their session waits for them when the connection breaks,
// and nothing is lost or doubled. Kubernetes' viewers do not notice.
//
// Status is plain text in v1 to v3 and a JSON metav1.Status from v4 on, with the exit code. Input can be closed over
// SPDY in every version, over WebSocket from v5 on.
package remote
