// Package store keeps everything the control server must not forget: typed records, the queue of events that wait for
// an agent, the keys of the server, and which replica holds which agent. Underneath is NATS JetStream, embedded in the
// process (no listening port, files under the data directory) or an external cluster that several replicas share.
//
// Reads never touch JetStream: every record is held in memory, fed by a watch. A record that a read returns is shared
// and must not be modified. Writes go to JetStream first, are checked against the revision they started from, and are
// visible to the next read of this process when the call returns; other replicas see them a little later, in order.
//
// Change feeds are ordered and coalesced: a slow reader misses intermediate states of a record, never its last one.
//
// Secrets of agents, API keys and registration tokens are kept as salted SHA-256 digests (they are random with more
// than 200 bits, so a fast hash is right). The server's private keys are files with mode 0600 under the data
// directory; only with an external cluster are they kept in a bucket, sealed if [Config.SealKey] is given.
package store
