package access

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// An Error is one that the caller is told.
type Error struct {
	Status     int
	Code       string
	Text       string
	RetryAfter time.Duration
}

// Codes of an [Error].
const (
	CodeNotConnected = "HostNotConnected" // 503: the agent is away
	CodeNoTunnel     = "NoTunnel"         // 501: the agent cannot open one; 503: it has not yet
	CodeBroken       = "TunnelBroken"     // 502: it ended before the host answered
	CodeClosing      = "ShuttingDown"     // 503
)

func (e *Error) Error() string { return e.Text }

func problem(status int, code, format string, args ...any) *Error {
	e := &Error{Status: status, Code: code, Text: fmt.Sprintf(format, args...)}
	if status == http.StatusServiceUnavailable {
		e.RetryAfter = time.Second
	}
	return e
}

// Write answers a request with the error.
func (e *Error) Write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	if e.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int((e.RetryAfter+time.Second-1)/time.Second)))
	}
	w.WriteHeader(e.Status)
	_ = json.NewEncoder(w).Encode(map[string]any{
		"type": "error", "status": e.Status, "code": e.Code, "message": e.Text,
	}) // the client is gone, then
}
