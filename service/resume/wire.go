package resume

import (
	"encoding/binary"
	"errors"
	"time"
)

// Protocol is the WebSocket subprotocol.
const Protocol = "v5.resume.drover"

// Path is where streams are continued, with the stream's id behind it.
const Path = "/v1/resume/"

// Headers of a request to continue a stream.
const (
	HeaderKey      = "Drover-Resume-Key"
	HeaderReceived = "Drover-Resume-Received"
)

// Channels that are not records.
const (
	ChanHello = 16
	ChanAck   = 17 // eight bytes, big-endian: how much was received and need not be kept
)

// CloseEnded is the close code of a connection whose stream cannot be continued.
const CloseEnded = 4404

const (
	// MaxData is the longest data of a record.
	MaxData = 32 << 10
	// AckEvery is how much is received before it is acknowledged.
	AckEvery = 64 << 10
	// MinWindow and MaxWindow bound how much a viewer may send before it is acknowledged.
	MinWindow, MaxWindow = 4 * AckEvery, 16 << 20
)

// A Hello is the host's first message.
type Hello struct {
	Session  string `json:"session"`
	Key      string `json:"key,omitempty"` // in the first one alone
	Received int64  `json:"received"`
	Acked    int64  `json:"acked"`     // as the newest message on ChanAck, which the cut may have swallowed
	From     int64  `json:"from"`      // where the host goes on; more than the viewer has received is a gap
	Window   int    `json:"window"`    // how much the viewer may send before it is acknowledged
	Grace    int64  `json:"graceMs"`   // how long the stream is kept after a cut
	Quiet    int64  `json:"maxIdleMs"` // how long a connection may be silent, either way
}

// GracePeriod is Grace as a duration.
func (h *Hello) GracePeriod() time.Duration { return time.Duration(h.Grace) * time.Millisecond }

// MaxIdle is Quiet as a duration.
func (h *Hello) MaxIdle() time.Duration { return time.Duration(h.Quiet) * time.Millisecond }

// Size is what a record with n bytes of data counts.
func Size(n int) int64 { return recordHeader + int64(n) }

// Ack is the data of an acknowledgement.
func Ack(position int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(position)) }

// ParseAck reads an acknowledgement.
func ParseAck(p []byte) (int64, error) {
	if len(p) != 8 || p[0] > 0x7f {
		return 0, errors.New("a malformed acknowledgement")
	}
	return int64(binary.BigEndian.Uint64(p)), nil
}
