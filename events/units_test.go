package events

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"testing"
	"testing/synctest"
	"time"
)

func TestFlushConnGathersWrites(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	c := &flushConn{Conn: near}
	c.gather(time.Second)
	for range 10 {
		if _, err := c.Write([]byte("frame")); err != nil {
			t.Fatal(err)
		}
	}
	got := make(chan string)
	go func() {
		b := make([]byte, 1000)
		n, _ := far.Read(b) // a pipe hands over one write
		got <- string(b[:n])
	}()
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	if s := <-got; len(s) != 50 {
		t.Errorf("one write carried %q", s)
	}
	_ = near.Close()
	_, _ = c.Write([]byte("x"))
	if c.Flush() == nil {
		t.Error("a write to a closed connection succeeded")
	}
	if _, err := c.Write([]byte("x")); err == nil {
		t.Error("a write after a failed one was taken")
	}
}

// TestFlushConnWantsHeadway writes much over a slow link, which takes longer than the timeout but moves, and then to a
// peer that stands still.
func TestFlushConnWantsHeadway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer near.Close()
		defer far.Close()
		c := &flushConn{Conn: near}
		c.gather(10 * time.Second)
		done := make(chan struct{})
		go func() {
			defer close(done)
			b := make([]byte, flushChunk)
			for range 10 {
				time.Sleep(5 * time.Second)
				if _, err := io.ReadFull(far, b); err != nil {
					return
				}
			}
		}()
		begin := time.Now()
		if _, err := c.Write(make([]byte, 10*flushChunk)); err != nil || time.Since(begin) != 50*time.Second {
			t.Fatalf("%v after %s", err, time.Since(begin))
		}
		<-done
		if age := time.Since(time.Unix(0, c.life.Load())); age > time.Second {
			t.Errorf("the last sign of life is %s old", age)
		}
		begin = time.Now()
		_, _ = c.Write([]byte("x"))
		var ne net.Error
		if err := c.Flush(); !errors.As(err, &ne) || !ne.Timeout() || time.Since(begin) != 10*time.Second {
			t.Errorf("%v after %s", err, time.Since(begin))
		}
	})
}

func TestFlushConnTellsADripFromASlowLink(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	c := &flushConn{Conn: near}
	b := make([]byte, aliveBytes)
	for _, n := range []int{1, aliveBytes - 2} {
		go func() { _, _ = far.Write(make([]byte, n)) }()
		if _, err := io.ReadFull(c, b[:n]); err != nil || c.life.Load() != 0 {
			t.Fatalf("%v; %d bytes count as life", err, n)
		}
	}
	go func() { _, _ = far.Write(make([]byte, 1)) }()
	if _, err := io.ReadFull(c, b[:1]); err != nil || c.life.Load() == 0 {
		t.Errorf("%v; %d bytes do not count as life", err, aliveBytes)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "-7": 0, "x": 0, "99999999999": maxRetryAfter, "Fri, 02 Jan 2026 03:04:35 GMT": 30 * time.Second,
		"Fri, 02 Jan 2020 03:04:35 GMT": 0,
	} {
		if got := retryAfter(http.Header{"Retry-After": {value}}, now); got != want {
			t.Errorf("%q: %s, want %s", value, got, want)
		}
	}
}

func TestURLs(t *testing.T) {
	for base, want := range map[string][3]string{
		"http://h:8080/v1":    {"ws://h:8080/v1/subscribe?eventNames=a&eventNames=b+c", "http://h:8080/v2-beta", "http://h:8080/v1"},
		"https://h/v1/":       {"wss://h/v1/subscribe?eventNames=a&eventNames=b+c", "https://h/v2-beta/", "https://h/v1/"},
		"https://h":           {"wss://h/subscribe?eventNames=a&eventNames=b+c", "https://h/v2-beta", "https://h/v1"},
		"https://h/v2-beta":   {"wss://h/v2-beta/subscribe?eventNames=a&eventNames=b+c", "https://h/v2-beta", "https://h/v2-beta"},
		"https://http.h/v1/x": {"wss://http.h/v1/x/subscribe?eventNames=a&eventNames=b+c", "https://http.h/v2-beta/x", "https://http.h/v1/x"},
	} {
		r := NewRouter(RouterConfig{})
		for _, name := range []string{"b c", "a"} {
			r.Handle(name, HandlerFunc(nil))
		}
		c, err := New(Config{URL: base, Router: r})
		if err != nil {
			t.Fatal(err)
		}
		if got := [3]string{c.dialer.target, c.rest.versionURL(apiPublish), c.rest.versionURL(apiV1)}; got != want {
			t.Errorf("%s: %v, want %v", base, got, want)
		}
	}
}

func TestLinksDoNotLeakCredentials(t *testing.T) {
	base, _ := url.Parse("https://h/v1")
	r := &rest{base: base}
	for link, want := range map[string]string{
		"https://h/v2-beta/publish": "https://h/v2-beta/publish", "http://h/v2-beta/publish": "https://h/v2-beta/publish",
		"http://h:8080/v2-beta/publish": "https://h/v2-beta/publish", "https://other/publish": "https://other/publish",
		"/v2-beta/publish": "https://h/v2-beta/publish", "http://other/publish": "", "": "", "://": "",
	} {
		got, err := r.safe(link)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", link, got, err)
		}
	}
}

func TestFifo(t *testing.T) {
	var f fifo[int]
	next := 0
	for i := range 1000 {
		f.push(i)
		if i%3 == 0 {
			if *f.first() != next || f.pop() != next {
				t.Fatalf("out of order at %d", next)
			}
			next++
		}
	}
	for f.len() > 0 {
		if f.pop() != next {
			t.Fatalf("out of order at %d", next)
		}
		next++
	}
	if next != 1000 {
		t.Errorf("%d came out", next)
	}
}
