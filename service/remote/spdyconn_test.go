package remote

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"
)

// readConn is a connection that can be read alone.
type readConn struct {
	net.Conn
	io.Reader
}

func (c readConn) Read(p []byte) (int, error) { return c.Reader.Read(p) }

func dataFrame(stream byte, flags byte, data string) string {
	return string([]byte{0, 0, 0, stream, flags, 0, byte(len(data) >> 8), byte(len(data))}) + data
}

// TestInputLeavesTheOtherFrames takes the input out of what a viewer sends, however that is cut into pieces.
func TestInputLeavesTheOtherFrames(t *testing.T) {
	const reset = "\x80\x03\x00\x03\x00\x00\x00\x08\x00\x00\x00\x05\x00\x00\x00\x05"
	const ping = "\x80\x03\x00\x06\x00\x00\x00\x04\x00\x00\x00\x01"
	long := strings.Repeat("0123456789abcdef", 3000)
	for name, c := range map[string]struct {
		sent, passed, input string
		open                bool // the input has not ended
	}{
		"data":               {sent: dataFrame(5, 0, "one ") + dataFrame(5, 0, "two"), input: "one two", open: true},
		"among others":       {sent: ping + dataFrame(5, 0, "one") + dataFrame(7, 0, "resize") + dataFrame(5, 0, "") + ping, passed: ping + dataFrame(7, 0, "resize") + ping, input: "one", open: true},
		"the end":            {sent: dataFrame(5, 0, "one") + dataFrame(5, 1, ""), passed: dataFrame(5, 1, ""), input: "one"},
		"the end with data":  {sent: dataFrame(5, 1, "last") + ping, passed: dataFrame(5, 1, "") + ping, input: "last"},
		"data after the end": {sent: dataFrame(5, 1, "last") + dataFrame(5, 0, "more") + ping, passed: dataFrame(5, 1, "") + ping, input: "last"},
		"a reset":            {sent: dataFrame(5, 0, "one") + reset + ping, passed: reset + ping, input: "one"},
		"another's reset":    {sent: strings.Replace(reset, "\x08\x00\x00\x00\x05", "\x08\x00\x00\x00\x07", 1), passed: strings.Replace(reset, "\x08\x00\x00\x00\x05", "\x08\x00\x00\x00\x07", 1), open: true},
		"long frames":        {sent: dataFrame(5, 0, long) + dataFrame(7, 0, long) + dataFrame(5, 0, long), passed: dataFrame(7, 0, long), input: long + long, open: true},
		"cut in a header":    {sent: ping + "\x00\x00\x00", passed: ping + "\x00\x00\x00", open: true},
		"cut in the data":    {sent: ping + dataFrame(5, 0, "one")[:9], passed: ping, input: "o", open: true},
		"cut in a reset":     {sent: reset[:14], passed: reset[:14], open: true},
	} {
		for how, wrap := range map[string]func(io.Reader) io.Reader{
			"at once": func(r io.Reader) io.Reader { return r }, "byte by byte": iotest.OneByteReader, "halves": iotest.HalfReader,
		} {
			in := newPipe(1 << 20)
			ahead := bufio.NewReaderSize(strings.NewReader(c.sent[:len(c.sent)/2]), len(c.sent)+16)
			_, _ = ahead.Peek(1)
			f := newFrameConn(readConn{Reader: wrap(strings.NewReader(c.sent[len(c.sent)/2:]))}, ahead, func() {})
			f.divert(5, in)
			f.divert(7, newPipe(1)) // a second one is not taken
			passed, err := io.ReadAll(f)
			if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) || string(passed) != c.passed {
				t.Errorf("%s, %s: the library reads %.60q, want %.60q, %v", name, how, passed, c.passed, err)
			}
			if closed := isClosed(in); closed == c.open {
				t.Errorf("%s, %s: the input has ended: %v", name, how, closed)
			}
			in.close()
			if got, _ := io.ReadAll(in); !bytes.Equal(got, []byte(c.input)) {
				t.Errorf("%s, %s: the input is %.50q, want %.50q", name, how, got, c.input)
			}
		}
	}
}

func isClosed(p *pipe) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed
}
