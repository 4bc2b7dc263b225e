package terminal

import (
	"errors"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// ErrStopped is what a read of an [Input] returns after Stop.
var ErrStopped = errors.New("reading was stopped")

// An Input reads a file such as standard input. A read that waits ends with Stop, without having taken anything: what
// the user types next is the shell's. One goroutine reads. What is no file cannot be told to stop.
type Input struct {
	from io.Reader
	file *os.File // nil: from is no file
	// The read end of a pipe becomes readable when the write end is closed.
	woken, wake *os.File
	reading     sync.Mutex
}

// NewInput returns an input of from. The caller calls Stop.
func NewInput(from io.Reader) (*Input, error) {
	in := &Input{from: from}
	file, ok := from.(*os.File)
	if !ok {
		return in, nil
	}
	in.file = file
	var err error
	in.woken, in.wake, err = os.Pipe()
	return in, err
}

// Stop ends reading, now and later, and returns when no read is under way. It is called once.
func (in *Input) Stop() {
	if in.file == nil {
		return
	}
	_ = in.wake.Close()
	in.reading.Lock()
	defer in.reading.Unlock()
	_ = in.woken.Close()
	in.woken = nil
}

// Read implements [io.Reader].
func (in *Input) Read(p []byte) (int, error) {
	if in.file == nil {
		return in.from.Read(p)
	}
	in.reading.Lock()
	defer in.reading.Unlock()
	if in.woken == nil {
		return 0, ErrStopped
	}
	fds := []unix.PollFd{
		{Fd: int32(in.woken.Fd()), Events: unix.POLLIN},
		{Fd: int32(in.file.Fd()), Events: unix.POLLIN},
	}
	for {
		_, err := unix.Poll(fds, -1)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, os.NewSyscallError("poll", err)
		case fds[0].Revents != 0:
			return 0, ErrStopped
		case fds[1].Revents != 0:
			return in.file.Read(p)
		}
	}
}
