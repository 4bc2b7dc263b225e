// Package hub holds the sockets of the agents: it pushes events to them, matches their replies, pings them, keeps the
// records of hosts and containers in step with what they report, and shares agents with the other replicas.
//
// Order: the events of one resource (resourceType:resourceId) reach an agent in the order in which Call and Send were
// entered on one replica. Exactly one outcome: a Call returns one final reply or one error; a second final reply for
// an event is counted, acknowledged and delivered nowhere. Durability: every event but a ping is stored before it is
// pushed, and stays stored until its final reply is in the caller's hands or its deadline passed; it survives the
// loss of the socket and of the server process. Blocking: only Call waits for an agent; nothing waits for a slow
// socket, which is closed instead. Ownership: every goroutine ends before Run returns.
package hub
