// Package service is what a node serves as byte streams, as one [net/http.Handler]: exec, attach, logs, stats, files,
// processes, events and ports of its containers. The tunnel, the node port and Rancher's proxy are doors to it; a door
// authenticates, the service's Policy decides what a request may do on this host.
//
//	POST, GET /v1/exec/{container}          a process; SPDY or WebSocket, see package remote
//	POST, GET /v1/attach/{container}        the main process
//	GET       /v1/resume/{stream}           a broken exec or attach goes on; see package resume
//	GET       /v1/logs/{container}          its output so far, or for as long as it runs
//	GET       /v1/stats, /v1/stats/{id}     use of the host and of containers
//	GET, HEAD, PUT /v1/files/{container}/PATH   files, as a tar stream
//	GET       /v1/tail/{container}/PATH     the last lines of a file, read from the host
//	GET       /v1/top/{container}           its processes
//	GET       /v1/events                    what happens to containers
//	GET       /v1/forward/{container}/{port}   a TCP port of it, as an upgrade to "tcp"
//	POST      /v1/images/build              builds an image; the answer is its log, in lines of JSON
//	GET       /v1/images/save?image=A       images as one tar
//	POST      /v1/images/load, import       takes such a tar, or that of a root file system
//
// A container is named by its id, an unambiguous prefix of it, or its name. An error is a JSON object with one clear
// line, and a status that fits; once a stream has begun, an error cuts the connection, so that nothing short looks whole.
//
// What it promises: a slow viewer slows its own stream and nobody else's, in bounded memory. When the viewer of a process
// is gone, the process gets the end of its input, SIGHUP, and SIGKILL after a grace, unless it was asked to be kept. A
// viewer that speaks package resume may come back meanwhile, and finds its process running and every byte in its place. In
// one container at most two processes are being started at a time, in the order in which they were asked for. No
// goroutine outlives its request but those of detached processes and of streams that wait for their viewers; [Service.Close]
// waits for them.
package service
