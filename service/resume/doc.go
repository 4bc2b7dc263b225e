// Package resume is what both ends of a resumable stream share: a viewer's streams outlive the connection that carries
// them. It is a WebSocket subprotocol, [Protocol], whose messages are those of v5.channel.k8s.io, a byte for the channel
// and its data, with two more channels and these rules:
//
//   - The host's first message of every connection is a [Hello] on [ChanHello]: the stream's id and key, how much it has
//     received, and from where it goes on.
//   - Every other message than hello and ack is a record. Each end counts the records that it received, in bytes: four for
//     a record, and its data. Where a connection broke, the viewer asks for /v1/resume/{id} with the key in a header and
//     its count in another. Both ends then send what the other one has not received.
//   - An end keeps what it sent until the other acknowledges it on [ChanAck], in a ring of bounded size, and waits while
//     that is full. A host that must not stop its process meanwhile drops the oldest records instead; the hello after it
//     says so.
//   - A connection that ends with a close frame ends the stream. One that ends without is to be continued.
//
// A [Sender] is one direction of a stream, for any number of goroutines. Write blocks while the ring is full or the
// connection takes no more; Attach and Send block while the connection takes no more; nothing else blocks. End and Close
// of the connection end all of it.
package resume
