// Package hub holds the sockets of the agents: it pushes events to them, matches their replies, pings them, keeps the
// records of hosts and containers in step with what they report, and shares agents with the other replicas.
//
// Order: the events of one resource (resourceType:resourceId) reach an agent in the order in which Call and Send were
// entered on one replica. Exactly one outcome: a Call returns one final reply or one error; a second final reply for
// an event is counted, acknowledged and delivered nowhere. Durability: every event but a ping outlives the socket, and
// the server process too: it is stored before it is pushed, or, if the agent is connected, as soon as it has gone without
// an answer for a moment (Timings.StoreAfter), and stays stored until its final reply is in the caller's hands or its
// deadline passed. Replies are acknowledged when their event is out of the queue for good. Blocking: only Call waits for an agent; nothing waits for a slow
// socket, which is closed instead. Ownership: every goroutine ends before Run returns.
package hub
