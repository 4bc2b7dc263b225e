package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/droverhq/drover/runtime"
)

// An Error is the body of an answer that is none.
type Error struct {
	Type    string `json:"type"` // "error"
	Status  int    `json:"status"`
	Code    string `json:"code"` // one of the codes below
	Message string `json:"message"`
}

// Codes of an [Error].
const (
	codeBusy        = "busy"
	codeInvalid     = "invalid"
	codeNotFound    = "notFound"
	codeConflict    = "conflict"
	codeUnsupported = "unsupported"
	codeUnavailable = "unavailable"
	codeDenied      = "denied"
	codeCanceled    = "canceled"
	codeInternal    = "internal"
	codeUpgrade     = "upgradeRequired"
)

// errBusy says that too many are waiting already.
var errBusy error = busy("too many processes are waiting to be started in this container; try again later")

type busy string

func (b busy) Error() string { return string(b) }

// ReplyCode tells those who answer events what it is.
func (busy) ReplyCode() string { return codeBusy }

// denied is a refusal by the policy.
type denied struct{ reason error }

func (d *denied) Error() string { return "forbidden on this host: " + d.reason.Error() }
func (d *denied) Unwrap() error { return d.reason }

// ReplyCode tells those who answer events what it is.
func (*denied) ReplyCode() string { return codeDenied }

// An answered error has reached the caller in another way.
type answered struct{ error }

func (a answered) Unwrap() error { return a.error }

func invalid(format string, args ...any) error {
	return &runtime.Error{Kind: runtime.ErrInvalid, Message: fmt.Sprintf(format, args...)}
}

func notFound(format string, args ...any) error {
	return &runtime.Error{Kind: runtime.ErrNotFound, Message: fmt.Sprintf(format, args...)}
}

func conflict(format string, args ...any) error {
	return &runtime.Error{Kind: runtime.ErrConflict, Message: fmt.Sprintf(format, args...)}
}

func unsupported(what string) error {
	return &runtime.Error{Kind: runtime.ErrUnsupported, Message: "the container engine of this host does not offer " + what}
}

// classify returns the status and the code of an error.
func classify(err error) (int, string) {
	var d *denied
	switch {
	case errors.As(err, &d):
		return http.StatusForbidden, codeDenied
	case errors.Is(err, errBusy):
		return http.StatusTooManyRequests, codeBusy
	case errors.Is(err, runtime.ErrNotFound):
		return http.StatusNotFound, codeNotFound
	case errors.Is(err, runtime.ErrConflict):
		return http.StatusConflict, codeConflict
	case errors.Is(err, runtime.ErrInvalid):
		return http.StatusBadRequest, codeInvalid
	case errors.Is(err, runtime.ErrUnsupported):
		return http.StatusNotImplemented, codeUnsupported
	case errors.Is(err, runtime.ErrUnavailable), errors.Is(err, context.DeadlineExceeded):
		return http.StatusServiceUnavailable, codeUnavailable
	case errors.Is(err, context.Canceled):
		return 499, codeCanceled // nobody reads it
	}
	return http.StatusInternalServerError, codeInternal
}

// result is what is observed of a request.
func result(err error) string {
	if err == nil {
		return "ok"
	}
	_, code := classify(err)
	return code
}

func writeError(w http.ResponseWriter, r *http.Request, err error) {
	status, code := classify(err)
	writeStatus(w, r, status, code, err)
}

func writeStatus(w http.ResponseWriter, r *http.Request, status int, code string, err error) {
	h := w.Header()
	for _, k := range []string{"Content-Length", "Content-Encoding", "Content-Disposition"} {
		h.Del(k)
	}
	if status == http.StatusTooManyRequests {
		h.Set("Retry-After", "1")
	}
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_ = json.NewEncoder(w).Encode(Error{Type: "error", Status: status, Code: code, Message: err.Error()})
	}
}

func writeJSON(w http.ResponseWriter, v any) error {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(v)
}
