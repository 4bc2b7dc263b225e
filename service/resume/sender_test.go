package resume

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A wire is a connection that breaks after so many bytes, in the middle of a message.
type wire struct {
	peer *peer
	left int
	once sync.Once
	gone chan struct{}
}

func (w *wire) Send(channel byte, parts ...[]byte) error {
	data := bytes.Join(parts, nil)
	if w.left -= len(data) + 1; w.left < 0 {
		w.Close()
		return io.ErrClosedPipe
	}
	select {
	case <-w.gone:
		return io.ErrClosedPipe
	default:
	}
	return w.peer.take(w, channel, data)
}

func (w *wire) Close() error {
	w.once.Do(func() { close(w.gone) })
	return nil
}

// A peer receives, and acknowledges now and then.
type peer struct {
	sender   *Sender
	mu       sync.Mutex
	got      map[byte]*bytes.Buffer
	received int64
	lost     int64
	acks     int
	rand     *rand.Rand
}

func newPeer(s *Sender, seed uint64) *peer {
	return &peer{sender: s, got: map[byte]*bytes.Buffer{1: {}, 2: {}}, rand: rand.New(rand.NewPCG(seed, 1))}
}

func (p *peer) take(w *wire, channel byte, data []byte) error {
	if channel == ChanHello {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.got[channel].Write(data)
	p.received += Size(len(data))
	// The last bytes before a cut may arrive though their sender takes them for lost.
	if p.rand.IntN(50) == 0 {
		w.Close()
		return io.ErrClosedPipe
	}
	if p.rand.IntN(4) == 0 {
		position := p.received
		p.acks++
		go func() { _ = p.sender.Acked(position) }()
	}
	return nil
}

// attach makes the next connection.
func (p *peer) attach(bytes int) error {
	p.mu.Lock()
	received := p.received
	p.mu.Unlock()
	return p.sender.Attach(&wire{peer: p, left: bytes, gone: make(chan struct{})}, received, received, func(from int64) (byte, []byte) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.lost += from - p.received
		p.received = from
		return ChanHello, nil
	})
}

// TestNothingIsLostOrDoubled writes on two channels over connections that break again and again.
func TestNothingIsLostOrDoubled(t *testing.T) {
	for seed := range uint64(20) {
		s := NewSender(64<<10, false)
		p := newPeer(s, seed)
		var writers sync.WaitGroup
		want := map[byte][]byte{}
		for _, channel := range []byte{1, 2} {
			data := make([]byte, 300<<10)
			r := rand.New(rand.NewPCG(seed, uint64(channel)))
			for i := range data {
				data[i] = byte(r.Uint32())
			}
			want[channel] = data
			writers.Go(func() {
				for rest := data; len(rest) > 0; {
					n := min(len(rest), 1+r.IntN(1<<(1+r.IntN(17))))
					if err := s.Write(channel, rest[:n]); err != nil {
						t.Error(err)
						return
					}
					rest = rest[n:]
				}
			})
		}
		done := make(chan struct{})
		go func() { writers.Wait(); close(done) }()
		cuts := 0
		for ended := false; !ended; {
			select {
			case <-done:
				ended = true
			default:
			}
			if ended || !s.Attached() {
				cuts++
				if err := p.attach(1 + p.rand.IntN(40<<10)); err != nil {
					t.Fatal(err)
				}
				p.mu.Lock()
				_ = s.Acked(p.received) // so that the ring does not stay full
				p.mu.Unlock()
			}
			time.Sleep(10 * time.Microsecond)
		}
		for p.total() < len(want[1])+len(want[2]) {
			if err := p.attach(1 << 30); err != nil {
				t.Fatal(err)
			}
		}
		for channel, data := range want {
			if !bytes.Equal(p.got[channel].Bytes(), data) {
				t.Errorf("seed %d, channel %d: %d bytes arrived, want the same %d", seed, channel, p.got[channel].Len(), len(data))
			}
		}
		if cuts < 5 || p.lost != 0 {
			t.Errorf("seed %d: %d cuts, %d bytes lost", seed, cuts, p.lost)
		}
		s.End(nil)
	}
}

func (p *peer) total() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.got[1].Len() + p.got[2].Len()
}

// TestLossyMarksItsGap: without a connection the oldest is dropped, and the next hello says how much.
func TestLossyMarksItsGap(t *testing.T) {
	s := NewSender(0, true) // room for one record of the longest
	p := newPeer(s, 1)
	record := make([]byte, 1000)
	for i := range 200 {
		record[0] = byte(i)
		if err := s.Write(1, record); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.attach(1 << 30); err != nil {
		t.Fatal(err)
	}
	for p.total() < 32*len(record) { // a wire may break on its own
		if err := p.attach(1 << 30); err != nil {
			t.Fatal(err)
		}
	}
	if p.got[1].Len() != 32*len(record) || p.lost != 168*Size(len(record)) || p.got[1].Bytes()[0] != 168 {
		t.Errorf("%d bytes arrived from record %d on, %d were lost", p.got[1].Len(), p.got[1].Bytes()[0], p.lost)
	}
	s.End(nil)
}

func TestRefusesWhatCannotBe(t *testing.T) {
	s := NewSender(64<<10, false)
	p := newPeer(s, 1)
	if err := s.Write(1, make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	for _, received := range []int64{-1, 1, 50, 103, 105, 1 << 62} {
		p.received = received
		if err := p.attach(1 << 20); !errors.Is(err, ErrUnknown) {
			t.Errorf("received %d: %v", received, err)
		}
	}
	if err := s.Acked(104); !errors.Is(err, ErrUnknown) {
		t.Errorf("an acknowledgement of what was not sent: %v", err)
	}
	for _, bad := range [][]byte{nil, {1}, make([]byte, 9), {0xff, 0, 0, 0, 0, 0, 0, 0}} {
		if _, err := ParseAck(bad); err == nil {
			t.Errorf("%v is no acknowledgement", bad)
		}
	}
	waiting := make(chan error, 1)
	go func() { waiting <- s.Write(1, make([]byte, 1<<20)) }()
	time.Sleep(10 * time.Millisecond)
	reason := errors.New("over")
	s.End(reason)
	if err := <-waiting; !errors.Is(err, reason) {
		t.Errorf("a write that waited: %v", err)
	}
	p.received = 0
	if err := p.attach(1 << 20); !errors.Is(err, reason) {
		t.Errorf("attach after the end: %v", err)
	}
}
