package runtime

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/synctest"
)

func TestBufferedPipe(t *testing.T) {
	p := newBufferedPipe(4)
	go func() {
		for range 100 {
			if n, err := p.Write([]byte("abcdefghij")); n != 10 || err != nil {
				t.Errorf("Write: %d, %v", n, err)
			}
		}
		p.end(nil)
	}()
	got, err := io.ReadAll(reader{p})
	if err != nil || !bytes.Equal(got, bytes.Repeat([]byte("abcdefghij"), 100)) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestBufferedPipeEnds(t *testing.T) {
	gone := errors.New("gone")
	for name, c := range map[string]struct {
		end  func(*bufferedPipe)
		n    int
		err  error
		read error
	}{
		"the reader closes": {func(p *bufferedPipe) { _ = reader{p}.Close() }, 10, nil, io.ErrClosedPipe},
		"the writer ends":   {func(p *bufferedPipe) { p.end(gone) }, 4, io.ErrClosedPipe, gone},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newBufferedPipe(4)
				done := make(chan struct{})
				go func() {
					defer close(done)
					if n, err := p.Write([]byte("abcdefghij")); n != c.n || !errors.Is(err, c.err) {
						t.Errorf("Write: %d, %v", n, err)
					}
				}()
				synctest.Wait() // the writer blocks: the pipe is full
				select {
				case <-done:
					t.Fatal("more was written than fits")
				default:
				}
				c.end(p)
				<-done
				_, err := io.ReadAll(reader{p})
				if !errors.Is(err, c.read) {
					t.Errorf("Read: %v, want %v", err, c.read)
				}
			})
		})
	}
}
