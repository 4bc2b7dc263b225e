package access

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// A message is a piece of an HTTP exchange on a backend; the first of each side has the head.
type message struct {
	Hijack  bool                `json:"hijack,omitempty"`
	Host    string              `json:"host,omitempty"`
	Method  string              `json:"method,omitempty"`
	URL     string              `json:"url,omitempty"`
	Headers map[string][]string `json:"headers,omitempty"`
	Code    int                 `json:"code,omitempty"`
	Body    []byte              `json:"body,omitempty"`
	EOF     bool                `json:"eof,omitempty"`
}

// hop are headers of one connection.
var hop = [...]string{"Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding"}

// proxyHTTP carries a request to the port of a container that the token names, and its answer back.
func (a *Access) proxyHTTP(w http.ResponseWriter, r *http.Request, c *channel, claims jwt.MapClaims, path string) error {
	target, err := proxyTarget(claims, path, r)
	if err != nil {
		return problem(http.StatusUnauthorized, "Unauthorized", "%v", err)
	}
	rc := http.NewResponseController(w)
	_ = rc.EnableFullDuplex()
	head := message{Hijack: r.Header.Get("Upgrade") != "", Host: target.Host, Method: r.Method, URL: target.String(), Headers: http.Header{}}
	for name, values := range r.Header {
		head.Headers[name] = values
	}
	for _, name := range append(hop[:], headerHop, "Authorization", "Origin") {
		delete(head.Headers, name)
	}
	if !head.Hijack {
		delete(head.Headers, "Connection")
	}
	if err := sendMessage(c, head); err != nil {
		return problem(http.StatusBadGateway, CodeBroken, "the connection to the host broke before it answered")
	}
	var sending sync.WaitGroup
	defer sending.Wait()
	var sent atomic.Bool // the whole body
	closing := func() {}
	if !head.Hijack {
		sending.Go(func() {
			_, err := io.CopyBuffer(messages{c}, struct{ io.Reader }{r.Body}, make([]byte, 4096))
			sent.Store(err == nil)
			if err == nil {
				_ = sendMessage(c, message{EOF: true}) // the answer tells if it is gone
			}
		})
		closing = func() {
			if r.Body != http.NoBody && !sent.Load() {
				w.Header().Set("Connection", "close")
			}
		}
		defer func() {
			if r.Body == http.NoBody || sent.Load() {
				return
			}
			// A body that is still being sent when the answer is complete is nobody's any more. The deadline ends the
			// context of the connection too, which therefore serves no other request.
			closing()
			_ = rc.SetReadDeadline(time.Unix(1, 0))
		}()
	}
	first, ok, err := recvMessage(c)
	switch {
	case err != nil || !ok || first.Code < 100 || first.Code > 599:
		return problem(http.StatusBadGateway, CodeBroken, "the host closed the request without an answer")
	case head.Hijack && first.Code == http.StatusSwitchingProtocols:
		return a.splice(w, c, first, &sending)
	}
	for name, values := range first.Headers {
		w.Header()[http.CanonicalHeaderKey(name)] = values
	}
	for _, name := range append(hop[:], "Connection", "Content-Security-Policy", "X-Content-Type-Options") {
		w.Header().Del(name)
	}
	closing()
	w.WriteHeader(first.Code)
	for next := first; ; {
		if len(next.Body) > 0 {
			if _, err := w.Write(next.Body); err != nil {
				return nil // the viewer left
			}
		}
		_ = rc.Flush()
		if next.EOF {
			return nil
		}
		if next, ok, err = recvMessage(c); !ok || err != nil {
			panic(http.ErrAbortHandler) // what was sent must not look whole
		}
	}
}

// splice carries bytes both ways after an upgrade. A viewer who has said everything is answered on, for as long as the
// host does not fall silent.
func (a *Access) splice(w http.ResponseWriter, c *channel, first message, sending *sync.WaitGroup) error {
	for name, values := range first.Headers {
		w.Header()[http.CanonicalHeaderKey(name)] = values
	}
	w.WriteHeader(first.Code)
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return err
	}
	_ = conn.SetDeadline(time.Time{})
	var half atomic.Bool
	silence := time.AfterFunc(a.cfg.Linger, c.Close)
	silence.Stop()
	sending.Go(func() {
		if _, err := io.CopyBuffer(messages{c}, struct{ io.Reader }{buffered}, make([]byte, 4096)); err != nil {
			c.Close()
			return
		}
		half.Store(true)
		silence.Reset(a.cfg.Linger)
		_ = sendMessage(c, message{EOF: true}) // the answer tells if it is gone
	})
	defer silence.Stop()
	defer conn.Close()
	for next := first; ; {
		_ = conn.SetWriteDeadline(time.Now().Add(viewerWrite))
		if _, err := conn.Write(next.Body); err != nil || next.EOF {
			return nil
		}
		var ok bool
		if next, ok, err = recvMessage(c); !ok || err != nil {
			return nil
		}
		if half.Load() {
			silence.Reset(a.cfg.Linger)
		}
	}
}

// proxyTarget is where a token for container-proxy leads.
func proxyTarget(claims jwt.MapClaims, path string, r *http.Request) (*url.URL, error) {
	claim, _ := claims["proxy"].(map[string]any)
	scheme, _ := claim["scheme"].(string)
	address, _ := claim["address"].(string)
	if scheme == "" {
		scheme = "http"
	}
	at, err := netip.ParseAddrPort(address)
	if err != nil || scheme != "http" && scheme != "https" {
		return nil, errors.New("the token names no port of a container")
	}
	q := r.URL.Query()
	q.Del("token")
	return &url.URL{Scheme: scheme, Host: at.String(), Path: path, RawQuery: q.Encode()}, nil
}

func sendMessage(c *channel, m message) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return c.Send(string(b))
}

func recvMessage(c *channel) (m message, ok bool, err error) {
	body, ok := c.Recv()
	if !ok {
		return m, false, nil
	}
	return m, true, json.Unmarshal([]byte(body), &m)
}

// messages sends bytes as body messages.
type messages struct{ c *channel }

func (m messages) Write(p []byte) (int, error) {
	if err := sendMessage(m.c, message{Body: p}); err != nil {
		return 0, err
	}
	return len(p), nil
}
