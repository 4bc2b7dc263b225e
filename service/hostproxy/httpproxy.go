package hostproxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// A message is a piece of an HTTP exchange; the first of each side has the head.
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

const (
	headerTimeout = time.Minute
	// rancherIP is the label with a container's address in the server's own network.
	rancherIP = "io.rancher.container.ip"
)

// containerProxy carries an HTTP request to a container of this host. Its frames have no token: the proxy has checked it.
func (c *Client) containerProxy(ctx context.Context, s *stream, u *url.URL) error {
	if !c.cfg.TrustProxy {
		if _, err := c.authorize(u); err != nil {
			return err
		}
	}
	if err := c.cfg.Node.AllowVerb(ctx, VerbProxy); err != nil {
		return err
	}
	body, ok := s.in.pop()
	if !ok {
		return nil
	}
	var head message
	if err := json.Unmarshal([]byte(body), &head); err != nil {
		return fmt.Errorf("the first message is no HTTP request: %w", err)
	}
	target, err := url.Parse(head.URL)
	if err != nil || target.Scheme != "http" && target.Scheme != "https" || target.Host == "" || head.Method == "" {
		return s.answer(http.StatusBadRequest, "the request names no container")
	}
	if err := c.ours(ctx, target.Hostname()); err != nil {
		return s.answer(http.StatusForbidden, err.Error())
	}
	input := &messages{in: s.in, rest: head.Body, eof: head.EOF}
	if head.Hijack {
		return s.hijack(ctx, head, target, input)
	}
	return s.exchange(ctx, head, target, input)
}

// ours reports whether an address is a running container's: the proxy must not reach anything else from here.
func (c *Client) ours(ctx context.Context, host string) error {
	running, err := c.cfg.Node.Running(ctx)
	if err != nil {
		return err
	}
	for _, r := range running {
		if address, _, _ := strings.Cut(r.Labels[rancherIP], "/"); address != "" && address == host {
			return nil
		}
	}
	for _, r := range running {
		if st, err := c.cfg.Node.State(ctx, r.ID); err == nil && st.IP != "" && st.IP == host {
			return nil
		}
	}
	return fmt.Errorf("%s is no container of this host", host)
}

func (s *stream) sendMessage(m message) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return s.send(string(b))
}

func (s *stream) answer(code int, text string) error {
	return errors.Join(
		s.sendMessage(message{Code: code, Headers: map[string][]string{"Content-Type": {"text/plain"}}, Body: []byte(text + "\n")}),
		s.sendMessage(message{EOF: true}))
}

// exchange is one request and its answer, which may last as long as it likes.
func (s *stream) exchange(ctx context.Context, head message, target *url.URL, input io.Reader) error {
	req, err := http.NewRequestWithContext(ctx, head.Method, target.String(), input)
	if err != nil {
		return s.answer(http.StatusBadRequest, "the request is none")
	}
	for k, v := range head.Headers {
		req.Header[http.CanonicalHeaderKey(k)] = v
	}
	if head.Host != "" {
		req.Host = head.Host
	}
	transport := &http.Transport{
		ResponseHeaderTimeout: headerTimeout,
		DisableCompression:    true,
		DisableKeepAlives:     true,
		// A container has an address and no name that a certificate could be for.
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // see above
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return s.answer(http.StatusBadGateway, "the container does not answer")
	}
	defer resp.Body.Close()
	if err := s.sendMessage(message{Code: resp.StatusCode, Headers: resp.Header}); err != nil {
		return err
	}
	if _, err := io.CopyBuffer(bodies{s}, struct{ io.Reader }{resp.Body}, make([]byte, piece)); err != nil {
		return err // without eof: what is there must not look whole
	}
	return s.sendMessage(message{EOF: true})
}

// hijack carries bytes both ways after the request's head.
func (s *stream) hijack(ctx context.Context, head message, target *url.URL, input io.Reader) error {
	address := target.Host
	if target.Port() == "" {
		address = net.JoinHostPort(target.Hostname(), map[string]string{"http": "80", "https": "443"}[target.Scheme])
	}
	dialer := net.Dialer{Timeout: dialTimeout}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return s.answer(http.StatusBadGateway, "the container does not answer")
	}
	if target.Scheme == "https" {
		conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // as above
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	req := &http.Request{Method: head.Method, URL: target, Host: head.Host, Header: http.Header{}, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}
	for k, v := range head.Headers {
		req.Header[http.CanonicalHeaderKey(k)] = v
	}
	if err := req.Write(conn); err != nil {
		return s.answer(http.StatusBadGateway, "the container does not take the request")
	}
	var sending sync.WaitGroup
	sending.Go(func() {
		if _, err := io.Copy(struct{ io.Writer }{conn}, input); err != nil {
			return
		}
		if half, ok := conn.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite() // the answer tells if it is gone
		}
	})
	defer func() {
		s.in.close()
		conn.Close()
		sending.Wait()
	}()
	br := bufio.NewReader(conn)
	resp, err := http.ReadResponse(br, req)
	if err != nil {
		return s.answer(http.StatusBadGateway, "the container does not answer")
	}
	if err := s.sendMessage(message{Code: resp.StatusCode, Headers: resp.Header}); err != nil {
		return err
	}
	var from io.Reader = br
	if resp.StatusCode != http.StatusSwitchingProtocols {
		from = resp.Body
	}
	if _, err := io.CopyBuffer(bodies{s}, struct{ io.Reader }{from}, make([]byte, piece)); err != nil {
		return err
	}
	return s.sendMessage(message{EOF: true})
}

// bodies sends bytes as body messages.
type bodies struct{ s *stream }

func (b bodies) Write(p []byte) (int, error) {
	if err := b.s.sendMessage(message{Body: p}); err != nil {
		return 0, err
	}
	return len(p), nil
}

// messages reads the bytes of body messages up to the one that is the end.
type messages struct {
	in   *inbox
	rest []byte
	eof  bool
}

func (m *messages) Read(p []byte) (int, error) {
	for len(m.rest) == 0 {
		if m.eof {
			return 0, io.EOF
		}
		body, ok := m.in.pop()
		if !ok {
			return 0, io.ErrUnexpectedEOF
		}
		var next message
		if err := json.Unmarshal([]byte(body), &next); err != nil {
			return 0, fmt.Errorf("no HTTP message: %w", err)
		}
		m.rest, m.eof = next.Body, next.EOF
	}
	n := copy(p, m.rest)
	m.rest = m.rest[n:]
	return n, nil
}
