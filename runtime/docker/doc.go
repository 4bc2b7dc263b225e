// Package docker is the container engine interface of package runtime on a Docker daemon, over its HTTP API.
//
// [New] does no I/O. The API version is negotiated before the first call and again whenever the daemon may have been
// replaced by another one: after a lost or refused connection, after a call without an answer, and when a daemon
// refuses the version. An [Engine] therefore outlives its daemon: calls fail with runtime.ErrUnavailable while it is
// away and succeed again when it is back.
//
// A call whose ctx has no deadline gets one (Config.Timeout, and four times that for calls that change something), so a
// hung daemon cannot hold a caller for ever. Calls that last as long as their subject does (Watch, Wait, Attach, Exec,
// Logs with Follow, Pull, BuildRemote, the copies) have none; they end with ctx, and the ones that report progress
// also when none comes.
//
// What a daemon answers to Inspect, InspectImage and List with Raw is passed on as it came, not decoded and encoded
// again. Nothing is cached. All methods are safe for concurrent use; those with streams own them until they return.
package docker
