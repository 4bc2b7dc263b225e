package access

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"
)

// A halfConn is a connection that notes its read deadlines.
type halfConn struct {
	net.Conn
	in, out   bytes.Buffer
	deadlines []time.Time
}

func (c *halfConn) Read(p []byte) (int, error)  { return c.in.Read(p) }
func (c *halfConn) Write(p []byte) (int, error) { return c.out.Write(p) }
func (c *halfConn) CloseWrite() error           { return nil }
func (c *halfConn) SetReadDeadline(t time.Time) error {
	c.deadlines = append(c.deadlines, t)
	return nil
}

// TestAViewerWhoGoesOnSendingIsNotCut moves the deadline of a viewer with each thing that he sends.
func TestAViewerWhoGoesOnSendingIsNotCut(t *testing.T) {
	conn := &halfConn{}
	tapped := &tapped{Conn: conn, linger: time.Hour}
	say := func() {
		conn.in.WriteString("x")
		if n, err := tapped.Read(make([]byte, 8)); n != 1 || err != nil {
			t.Fatal(n, err)
		}
	}
	say()
	if len(conn.deadlines) != 0 {
		t.Error("a viewer has a deadline while his host has more to say")
	}
	if n, err := io.Copy(tapped, bytes.NewReader(make([]byte, 300<<10))); n != 300<<10 || err != nil || conn.out.Len() != 300<<10 {
		t.Errorf("%d of %d bytes, %v", conn.out.Len(), n, err)
	}
	if err := tapped.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	say()
	say()
	if len(conn.deadlines) != 3 || !conn.deadlines[2].After(conn.deadlines[0]) {
		t.Errorf("deadlines %v: want one when the host has ended, and a later one with each read", conn.deadlines)
	}
}
