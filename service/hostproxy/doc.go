// Package hostproxy is Rancher 1.6's door to a node's streams: one outbound WebSocket to the server's proxy, on which
// each viewer's stream is a key, and every text frame "key||type||body". The streams themselves are those of package
// service, under the same policy.
//
// What it promises: every path asks for a token of the server, signed with RS256 by the key in api.crt, whose hostUuid
// is this host's and whose claim is the path's own; container-proxy, whose frames carry none, is off unless the
// proxy is trusted. The reader never waits for a stream: one that does not take its input is closed. Each stream's panic
// and each malformed frame cost that stream or frame alone. Streams and queues are bounded, writes have a deadline, and
// [Client.Run] returns after all of its streams have ended.
package hostproxy
