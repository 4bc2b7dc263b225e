// Package events is the agent's control channel: it subscribes to a control server over one outbound WebSocket, takes
// the events that the server pushes, runs a handler for each and sees to it that the server gets exactly one final
// reply for each.
//
// Order and parallelism. Events of one key (resource type and id) run one at a time in the order of arrival, and their
// replies leave in that order. Events of different keys run in parallel, up to [Config.Workers]. Events named "ping"
// have a lane of their own, so a loaded host still answers them.
//
// Once. An event whose id is queued or running is joined: the handler runs once and one reply goes out. An event whose
// id was answered before is answered from the journal without running. An event that carries no replyTo runs and is
// not answered.
//
// Nothing is dropped in silence. The queue is bounded; an event that finds it full gets a busy reply at once and is
// counted. A malformed event gets an error reply that names the field, as soon as its id or replyTo can be read. The
// reader of the socket never waits for work.
//
// Replies. A final reply is written to the journal before it is sent, and stays there until the server took it, over
// lost connections, restarts and the sudden death of the process; within a second it is safe against power loss too. To a Rancher server it goes by POST, to a Drover
// server over the socket itself. Progress is coalesced and never sent after the final reply.
//
// Connection. Run dials at once, keeps the socket alive with pings, drops it when it goes silent in either direction,
// and dials again with jittered delays until its context ends. Every goroutine that Run starts has ended when it
// returns.
package events
