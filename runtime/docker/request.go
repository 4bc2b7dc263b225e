package docker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"time"

	"github.com/droverhq/drover/runtime"
)

const (
	maxBody       = 256 << 20 // of an answer that is held in memory: some 400,000 containers
	maxPooledBody = 1 << 20
	maxErrorBody  = 64 << 10
)

// request sends a request by hand and returns the answer, whose body the caller closes. A status of 400 or more is an
// error. query is encoded already. It exists beside the library's client for what that one cannot do: pass answers on
// undecoded, keep the daemon's message when an upgrade is refused, and see a stream's end.
func (e *Engine) request(ctx context.Context, tr *http.Transport, s *session, method, path, query string, body io.Reader, header http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "/", body)
	if err != nil {
		return nil, err
	}
	req.URL.Scheme, req.URL.Host = e.base.Scheme, e.base.Host
	req.URL.Path = e.base.Path + s.prefix + path
	req.URL.RawQuery = query
	req.Header = e.header
	if header != nil {
		req.Header = header
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode < http.StatusBadRequest {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, refusal(resp)
}

// refusal is the error of an answer with a status of 400 or more.
func refusal(resp *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	message := clean(string(text))
	var decoded struct{ Message string }
	if json.Unmarshal(text, &decoded) == nil && decoded.Message != "" {
		message = clean(decoded.Message)
	}
	if strings.HasPrefix(message, "<") {
		return &runtime.Error{Kind: runtime.ErrUnavailable, Message: "answered with a web page (" + resp.Status + "), not as a Docker daemon does"}
	}
	if message == "" {
		message = resp.Status
	}
	return &runtime.Error{Kind: kindOfStatus(resp.StatusCode), Message: message}
}

// relay gets a JSON document and returns its bytes as they came. The slice is the caller's.
func (e *Engine) relay(ctx context.Context, s *session, path, query string) (json.RawMessage, error) {
	resp, err := e.request(ctx, e.bounded, s, http.MethodGet, path, query, nil, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if kind := resp.Header.Get("Content-Type"); !strings.HasPrefix(kind, "application/json") {
		return nil, &runtime.Error{Kind: runtime.ErrUnavailable, Message: "answered with " + kind + ", not as a Docker daemon does"}
	}
	buf, _ := e.bodies.Get().(*bytes.Buffer)
	if buf == nil {
		buf = bytes.NewBuffer(make([]byte, 0, 8<<10))
	}
	buf.Reset()
	defer func() {
		if buf.Cap() <= maxPooledBody {
			e.bodies.Put(buf)
		}
	}()
	n, err := buf.ReadFrom(io.LimitReader(resp.Body, maxBody+1))
	if err != nil {
		return nil, err
	}
	if n > maxBody {
		return nil, &runtime.Error{Kind: runtime.ErrUnsupported, Message: "the daemon's answer is too large"}
	}
	return bytes.Clone(bytes.TrimSpace(buf.Bytes())), nil
}

// getJSON gets a JSON document and decodes the few fields that v has.
func (e *Engine) getJSON(ctx context.Context, s *session, path, query string, v any) error {
	raw, err := e.relay(ctx, s, path, query)
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, v)
}

// A hijacked is a connection that the daemon gave up to a stream in both directions.
type hijacked struct {
	io.ReadWriteCloser // the upgraded body
	conn               net.Conn
	mediaType          string
}

// CloseWrite ends the direction to the daemon: the process reads EOF.
func (h *hijacked) CloseWrite() error {
	if c, ok := h.conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return errors.ErrUnsupported
}

// hijack posts body as JSON and takes the connection over. The end of ctx breaks the connection; the answer itself is
// awaited for Config.Timeout. The caller closes the result.
func (e *Engine) hijack(ctx context.Context, s *session, path, query string, body any) (*hijacked, error) {
	encoded, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	var conn net.Conn
	ctx, cancel := context.WithCancel(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) { conn = info.Conn },
	}))
	silence := time.AfterFunc(e.cfg.Timeout, cancel)
	header := http.Header{
		"User-Agent": e.header["User-Agent"], "Content-Type": {"application/json"},
		"Connection": {"Upgrade"}, "Upgrade": {"tcp"},
	}
	resp, err := e.request(ctx, e.long, s, http.MethodPost, path, query, bytes.NewReader(encoded), header)
	if !silence.Stop() {
		if err == nil {
			resp.Body.Close()
		}
		err = &runtime.Error{Kind: runtime.ErrUnavailable, Message: "no answer in time from " + e.cfg.Host, Cause: err}
	}
	if err != nil {
		cancel()
		return nil, err
	}
	stream, ok := resp.Body.(io.ReadWriteCloser)
	if resp.StatusCode != http.StatusSwitchingProtocols || !ok {
		resp.Body.Close()
		cancel()
		return nil, &runtime.Error{Kind: runtime.ErrUnavailable, Message: "the daemon, or a proxy before it, does not give up the connection (" + resp.Status + ")"}
	}
	h := &hijacked{conn: conn, mediaType: resp.Header.Get("Content-Type")}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	h.ReadWriteCloser = &upgraded{ReadWriteCloser: stream, release: func() { stop(); cancel() }}
	return h, nil
}

// upgraded releases what ties a connection to its ctx when it is closed.
type upgraded struct {
	io.ReadWriteCloser
	release func()
}

func (u *upgraded) Close() error {
	err := u.ReadWriteCloser.Close()
	u.release()
	return err
}
