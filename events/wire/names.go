package wire

// Names of events and frames that the channel itself knows.
const (
	NamePing   = "ping"          // with a replyTo a request, without one the server's keep-alive
	NameLogout = "logout"        // the server ends the subscription
	NameAck    = "drover.ack"    // a Drover server has these replies safe; see [Ack]
	NameGoAway = "drover.goaway" // a Drover server shuts down; see [GoAway]
)

// Headers of the WebSocket upgrade. A server that answers HeaderProtocol with Protocol takes replies over the socket
// and acknowledges them.
const (
	HeaderVersion  = "Drover-Version"
	HeaderProtocol = "Drover-Protocol"
	HeaderTime     = "Drover-Time" // RFC 3339 with nanoseconds
	Protocol       = "1"
)
