package hub_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	goruntime "runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/server/hub"
	"github.com/droverhq/drover/server/hub/hubtest"
	"github.com/droverhq/drover/server/pki"
	"github.com/droverhq/drover/server/store"
	"github.com/droverhq/drover/server/store/storetest"
)

// idleEnv makes the test binary a process of idle agents, so that what is measured in the other one is the server's.
const idleEnv = "DROVER_TEST_IDLE_AGENTS"

// idleAgents are what the process has to hold.
type idleAgents struct {
	Address string
	TLS     bool
	IDs     []string // of agents; "": no agents but bare connections that get one byte
	Bare    int
}

// idleMain connects, says "ready", and holds the connections until its input ends.
func idleMain() int {
	if err := holdIdle(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func holdIdle() error {
	var cfg idleAgents
	if err := json.Unmarshal([]byte(os.Getenv(idleEnv)), &cfg); err != nil {
		return err
	}
	var conns []net.Conn
	for i := range max(len(cfg.IDs), cfg.Bare) {
		conn, err := net.Dial("tcp", cfg.Address)
		if err != nil {
			return err
		}
		if cfg.TLS {
			conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}) //nolint:gosec // memory is measured, not trust
		}
		conns = append(conns, conn)
		if cfg.Bare > 0 {
			if _, err := conn.Write([]byte{1}); err != nil {
				return err
			}
			if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
				return err
			}
			continue
		}
		if err := answerOnce(conn, cfg.Address, cfg.IDs[i]); err != nil {
			return err
		}
	}
	fmt.Println("ready")
	_, err := io.Copy(io.Discard, os.Stdin)
	for _, conn := range conns {
		_ = conn.Close()
	}
	return err
}

// answerOnce subscribes, and answers the first ping that asks for an answer.
func answerOnce(conn net.Conn, host, id string) error {
	c, err := subscribeLean(conn, host, id)
	if err != nil {
		return err
	}
	for {
		frame, err := c.read()
		if err != nil {
			return err
		}
		ev, err := wire.DecodeEvent(frame)
		if err != nil {
			return err
		}
		if ev.ReplyTo != "" {
			c.reply(ev, `{"options":{}}`)
			c.out = append(c.out, 0x89, 0x80, 0, 0, 0, 0) // an empty ping, as agents send every 5 s
			return c.flush()
		}
	}
}

// startIdle runs the other process and returns when all its connections are there.
func startIdle(tb testing.TB, cfg idleAgents) {
	tb.Helper()
	text, err := json.Marshal(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), idleEnv+"="+string(text))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		tb.Fatalf("the idle agents say %q, %v", line, err)
	}
}

// inUse returns what the program holds after a collection, heap and stacks.
func inUse() uint64 {
	for range 3 {
		goruntime.GC()
	}
	var m goruntime.MemStats
	goruntime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

// vault is a place for keys that ends with the test.
type vault map[string][]byte

func (v vault) Secret(_ context.Context, name string, create func() ([]byte, error)) ([]byte, error) {
	if v[name] == nil {
		b, err := create()
		if err != nil {
			return nil, err
		}
		v[name] = b
	}
	return v[name], nil
}

// serverTLS is what a server with a CA of its own, the default, has.
func serverTLS(tb testing.TB) *tls.Config {
	tb.Helper()
	keys, err := pki.Open(tb.Context(), vault{}, nil)
	if err != nil {
		tb.Fatal(err)
	}
	issuer, err := pki.NewIssuer(keys, []string{"127.0.0.1"}, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return issuer.TLSConfig()
}

const batches = 4

// eachCosts connects some batches of each connections, and returns what one costs in bytes: the median of the batches, so
// that a cache of the store that grows in the meantime does not count.
func eachCosts(each int, connect func(batch int)) float64 {
	var costs []float64
	for batch := range batches {
		before := inUse()
		connect(batch)
		if batch > 0 { // the first one warms up
			costs = append(costs, (float64(inUse())-float64(before))/float64(each))
		}
	}
	slices.Sort(costs)
	return costs[len(costs)/2]
}

// idle connects agents that answer one ping, send another, and then are silent, and returns what each costs in bytes: its
// socket and its state in the hub. Its records are not counted, and neither is the kernel's share.
func idle(tb testing.TB, each int, secure bool) float64 {
	s := storetest.Open(tb)
	var tc *tls.Config
	if secure {
		tc = serverTLS(tb)
	}
	srv := hubtest.StartTLS(tb, hub.Config{Store: s, Timings: hub.Timings{Ping: 24 * time.Hour}}, tc)
	var ids []string
	for i := range batches * each {
		ids = append(ids, srv.Register(tb, fmt.Sprint("key-", i)))
	}
	return eachCosts(each, func(batch int) {
		startIdle(tb, idleAgents{Address: srv.Address(), TLS: secure, IDs: ids[batch*each : (batch+1)*each]})
		hubtest.WaitFor(tb, "all to be online and quiet", func() bool {
			online := 0
			for _, a := range s.Agents.List() {
				if a.Connection == store.ConnectionOnline {
					online++
				}
			}
			return online == (batch+1)*each && srv.Resting() == (batch+1)*each
		})
	})
}

// idleFloor returns what a connection of crypto/tls costs that was used once, with a goroutine that reads from it and
// with nothing around it.
func idleFloor(tb testing.TB, each int) float64 {
	tc := serverTLS(tb)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	var wg sync.WaitGroup
	tb.Cleanup(wg.Wait)
	tb.Cleanup(func() { _ = ln.Close() })
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				if !errors.Is(err, net.ErrClosed) {
					tb.Error(err)
				}
				return
			}
			wg.Go(func() {
				c := tls.Server(conn, tc)
				defer c.Close()
				var b [1]byte
				for {
					if _, err := io.ReadFull(c, b[:]); err != nil {
						return
					}
					if _, err := c.Write(b[:]); err != nil {
						return
					}
				}
			})
		}
	})
	return eachCosts(each, func(int) {
		startIdle(tb, idleAgents{Address: ln.Addr().String(), TLS: true, Bare: each})
	})
}

func TestIdleConnectionIsCheap(t *testing.T) {
	limit := 12.0 // KB
	if raceDetector {
		limit = 16 // its shadow of each object is not ours
	}
	for name, secure := range map[string]bool{"plain": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			each := idle(t, 60, secure) / 1024
			t.Logf("%.1f KB an idle connection", each)
			if each > limit {
				t.Errorf("an idle connection costs %.1f KB, want at most %.0f", each, limit)
			}
		})
	}
}

// TestRestingSessionWakes lets sessions fall quiet, over plain TCP and TLS, and then has them answer: in one record with
// another frame, byte by byte, and at last by closing.
func TestRestingSessionWakes(t *testing.T) {
	for name, secure := range map[string]bool{"plain": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			var tc *tls.Config
			if secure {
				tc = serverTLS(t)
			}
			srv := hubtest.StartTLS(t, hub.Config{Store: storetest.Open(t), Timings: hub.Timings{Ping: 24 * time.Hour}}, tc)
			id := srv.Register(t, "k")
			socket, err := net.Dial("tcp", srv.Address())
			if err != nil {
				t.Fatal(err)
			}
			slow := &dripConn{Conn: socket}
			var conn net.Conn = slow
			if secure {
				conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}) //nolint:gosec // a test
			}
			c, err := subscribeLean(conn, srv.Address(), id)
			if err != nil {
				t.Fatal(err)
			}
			for _, drip := range []bool{false, true} {
				hubtest.WaitFor(t, "the session to rest", func() bool { return srv.Resting() == 1 })
				answered := make(chan error, 1)
				go func() {
					_, err := srv.Call(t.Context(), id, &wire.Event{Name: "test.event", ResourceType: "thing", ResourceID: "1t1", Data: []byte(`{}`)}, nil)
					answered <- err
				}()
				for {
					frame, err := c.read()
					if err != nil {
						t.Fatal(err)
					}
					if ev, err := wire.DecodeEvent(frame); err == nil && ev.ReplyTo != "" {
						c.out = append(c.out, 0x89, 0x84, 0, 0, 0, 0, 'p', 'i', 'n', 'g')
						c.reply(ev, `{}`)
						if ev.Name == "test.event" {
							break
						}
					}
				}
				slow.drip = drip
				if err := c.flush(); err != nil {
					t.Fatal(err)
				}
				slow.drip = false
				if err := <-answered; err != nil {
					t.Errorf("drip %t: %v", drip, err)
				}
			}
			hubtest.WaitFor(t, "the session to rest", func() bool { return srv.Resting() == 1 })
			_ = conn.Close()
			hubtest.WaitFor(t, "the end to be seen", func() bool { return srv.Stats().Sessions == 0 })
		})
	}
}

// A dripConn writes one byte at a time on request.
type dripConn struct {
	net.Conn
	drip bool
}

func (c *dripConn) Write(p []byte) (int, error) {
	if !c.drip {
		return c.Conn.Write(p)
	}
	for i := range p {
		if n, err := c.Conn.Write(p[i : i+1]); err != nil {
			return i + n, err
		}
	}
	return len(p), nil
}

func BenchmarkIdleConnection(b *testing.B) {
	for name, measure := range map[string]func() float64{
		"plain":           func() float64 { return idle(b, 400, false) },
		"TLS":             func() float64 { return idle(b, 400, true) },
		"crypto-tls-only": func() float64 { return idleFloor(b, 400) },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				b.ReportMetric(measure()/1024, "KB/conn")
			}
		})
	}
}
