package api

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"time"
)

// writeTimeout bounds how long a client may take for one piece of an answer.
const writeTimeout = time.Minute

// A recorder remembers what was answered, for the log. It passes everything through.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
	who    string // account id
	quiet  bool   // replies of agents: too many to log
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 && status >= 200 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	// A client that does not read holds no goroutine for ever. A writer without deadlines, as tests have, may block.
	_ = http.NewResponseController(r.ResponseWriter).SetWriteDeadline(time.Now().Add(writeTimeout))
	n, err := r.ResponseWriter.Write(b)
	r.bytes += int64(n)
	return n, err
}

// Hijack implements http.Hijacker: WebSockets need it.
func (r *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if r.status == 0 {
		r.status = http.StatusSwitchingProtocols
	}
	return http.NewResponseController(r.ResponseWriter).Hijack()
}

// Flush implements http.Flusher.
func (r *recorder) Flush() { _ = http.NewResponseController(r.ResponseWriter).Flush() }

// Unwrap serves http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func writeJSON(w http.ResponseWriter, status int, v any) {
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		status = http.StatusInternalServerError
		body.Reset()
		body.WriteString(`{"type":"error","status":500,"code":"Internal Server Error","message":"the answer cannot be written"}`)
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(body.Bytes()) // the client is gone, then
}

// maskPath returns a path as it may be logged: without the token of a registration script.
func maskPath(path string) string {
	const scripts = "scripts/"
	i := strings.Index(strings.ToLower(path), scripts)
	if i < 0 {
		return path
	}
	head, name := path[:i+len(scripts)], strings.Trim(path[i+len(scripts):], "/")
	if isScript(name) {
		return path
	}
	return head + "***"
}
