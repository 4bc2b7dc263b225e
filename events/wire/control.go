package wire

import "strconv"

// An Ack is the data of a frame [NameAck]: the server has the final replies to these events safe, and the agent may
// forget them. Only a Drover server sends it.
type Ack struct {
	IDs []string // of the events
}

// A GoAway is the data of a frame [NameGoAway]: the server is about to close and asks not to be dialed sooner.
type GoAway struct {
	RetryAfterMillis int64
}

// AppendAck appends the whole frame to dst.
func AppendAck(dst []byte, a Ack) []byte {
	dst = append(dst, `{"name":"`+NameAck+`","data":{"ids":`...)
	dst = appendStrings(dst, a.IDs)
	return append(dst, '}', '}')
}

// AppendGoAway appends the whole frame to dst.
func AppendGoAway(dst []byte, g GoAway) []byte {
	dst = append(dst, `{"name":"`+NameGoAway+`","data":{"retryAfterMillis":`...)
	dst = strconv.AppendInt(dst, g.RetryAfterMillis, 10)
	return append(dst, '}', '}')
}

// DecodeAck reads the data of a frame [NameAck].
func DecodeAck(data []byte) (Ack, error) {
	var a Ack
	f, err := open(data)
	if err != nil {
		return a, err
	}
	for f.next() {
		if string(f.key) == "ids" {
			a.IDs = f.list()
		} else {
			f.skip()
		}
	}
	return a, f.end()
}

// DecodeGoAway reads the data of a frame [NameGoAway].
func DecodeGoAway(data []byte) (GoAway, error) {
	var g GoAway
	f, err := open(data)
	if err != nil {
		return g, err
	}
	for f.next() {
		if string(f.key) == "retryAfterMillis" {
			g.RetryAfterMillis = f.integer("a number of milliseconds", false)
		} else {
			f.skip()
		}
	}
	return g, f.end()
}
