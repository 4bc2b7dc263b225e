// Package ping answers the server's application ping: what the host is, what it has and which containers it holds.
// The keep-alive of the socket is not here but in package events.
//
// An answer is put together from what others gathered in the background: the container cache, the host's samples and
// the engine's facts. Nothing of it blocks, but that the first answer of a process may wait 50 ms for the first sample.
package ping
