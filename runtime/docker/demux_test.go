package docker

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/docker/docker/pkg/stdcopy"
)

func frame(stream byte, p []byte) []byte {
	head := [frameHeader]byte{stream}
	binary.BigEndian.PutUint32(head[4:], uint32(len(p)))
	return append(head[:], p...)
}

// cut reads in pieces of any length.
type cut struct {
	r    io.Reader
	rand *rand.Rand
}

func (c cut) Read(p []byte) (int, error) {
	return c.r.Read(p[:min(len(p), 1+c.rand.IntN(1<<(1+c.rand.IntN(17))))])
}

// TestDemuxAsTheDaemonsLibrary: the same bytes come out as of docker's own code, however they are cut.
func TestDemuxAsTheDaemonsLibrary(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 7))
		var sent bytes.Buffer
		content := rand.NewChaCha8([32]byte{byte(seed)})
		for range 60 {
			p := make([]byte, r.IntN(1<<(1+r.IntN(18))))
			_, _ = content.Read(p) // it never fails
			sent.Write(frame(byte(r.IntN(3)), p))
		}
		var out, errOut, wantOut, wantErr bytes.Buffer
		if err := demux(&sinks{out: &out, err: &errOut}, cut{bytes.NewReader(sent.Bytes()), r}); err != nil {
			t.Fatal(err)
		}
		if _, err := stdcopy.StdCopy(&wantOut, &wantErr, &sent); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(out.Bytes(), wantOut.Bytes()) || !bytes.Equal(errOut.Bytes(), wantErr.Bytes()) {
			t.Fatalf("seed %d: %d and %d bytes came, want the same %d and %d", seed, out.Len(), errOut.Len(), wantOut.Len(), wantErr.Len())
		}
	}
}

// order notes the writes to both streams.
type order struct {
	name  string
	calls *[]string
}

func (o order) Write(p []byte) (int, error) {
	*o.calls = append(*o.calls, o.name+string(p))
	return len(p), nil
}

func TestDemuxJoinsAndKeepsOrder(t *testing.T) {
	sent := bytes.Join([][]byte{
		frame(1, []byte("a")), frame(1, []byte("b")), frame(1, nil), frame(1, []byte("c")), frame(2, []byte("d")), frame(1, []byte("e")), frame(2, []byte("f")),
	}, nil)
	var calls []string
	if err := demux(&sinks{out: order{"out ", &calls}, err: order{"err ", &calls}}, bytes.NewReader(sent)); err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(calls, ", "), "out abc, err d, out e, err f"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestDemuxEnds(t *testing.T) {
	for name, c := range map[string]struct{ sent, out, fails string }{
		"nothing":           {"", "", ""},
		"half a header":     {string(frame(1, []byte("a"))) + "\x01\x00", "a", ""},
		"half a frame":      {string(frame(1, []byte("abcdef"))[:frameHeader+3]), "abc", ""},
		"a complaint":       {string(frame(1, []byte("a"))) + string(frame(3, []byte("no disk"))), "a", "no disk"},
		"an endless one":    {string(frame(3, make([]byte, 1<<20))), "", "the daemon"},
		"an unknown stream": {string(frame(1, []byte("a"))) + string(frame(9, []byte("b"))), "a", "unknown stream, 9"},
		"HTTP":              {"HTTP/1.1 500 Internal Server Error\r\n\r\n", "", "unknown stream"},
	} {
		var out bytes.Buffer
		err := demux(&sinks{out: &out}, iotest.OneByteReader(strings.NewReader(c.sent)))
		if out.String() != c.out || (err == nil) != (c.fails == "") || err != nil && (!strings.Contains(err.Error(), c.fails) || len(err.Error()) > maxComplaint+100) {
			t.Errorf("%s: %q, %v", name, out.String(), err)
		}
	}
	broken := io.MultiReader(bytes.NewReader(frame(1, []byte("a"))), iotest.ErrReader(io.ErrUnexpectedEOF))
	var out bytes.Buffer
	if err := demux(&sinks{out: &out}, broken); err != io.ErrUnexpectedEOF || out.String() != "a" {
		t.Errorf("%q, %v", out.String(), err)
	}
}
