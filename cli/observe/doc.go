// Package observe tells how an agent is: the loopback listener with /healthz (the process lives), /readyz (the server is
// connected and the engine answers), /metrics (Prometheus) and, on request, /debug/pprof. Answers are made of what others
// already know, so none of them waits for a server or an engine.
//
// A [Server] starts no goroutine but those of Run, which blocks until its ctx ends and all requests are done.
package observe
