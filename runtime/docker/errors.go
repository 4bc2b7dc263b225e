package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/client"

	"github.com/droverhq/drover/runtime"
)

// maxMessage is how much of a daemon's text an error carries.
const maxMessage = 2000

// invalid is an error of the caller, found before the daemon was asked.
func invalid(op, format string, args ...any) error {
	return &runtime.Error{Op: op, Kind: runtime.ErrInvalid, Message: fmt.Sprintf(format, args...)}
}

// wrap turns whatever a call returned into a runtime.Error, once. A lost or silent daemon also ends the session.
func (e *Engine) wrap(ctx context.Context, op string, err error) error {
	if err == nil {
		return nil
	}
	var known *runtime.Error
	if errors.As(err, &known) && known.Op != "" {
		return known
	}
	if ended := ctx.Err(); ended != nil && known == nil {
		if errors.Is(ended, context.Canceled) {
			return fmt.Errorf("%s: %w", op, ended)
		}
		e.lost()
		return &runtime.Error{Op: op, Kind: runtime.ErrUnavailable, Message: "no answer in time from " + e.cfg.Host, Cause: ended}
	}
	message, lost, kind := classify(err)
	if lost {
		e.lost()
		if !strings.Contains(message, e.cfg.Host) {
			message = e.cfg.Host + ": " + message
		}
	}
	if known != nil {
		err = known.Cause
	}
	return &runtime.Error{Op: op, Kind: kind, Message: message, Cause: err}
}

// wrapLong is wrap for a call that takes as long as its subject does: the end of ctx is no fault of the daemon's.
func (e *Engine) wrapLong(ctx context.Context, op string, err error) error {
	if err == nil {
		return nil
	}
	if ended := ctx.Err(); ended != nil {
		return fmt.Errorf("%s: %w", op, ended)
	}
	return e.wrap(ctx, op, err)
}

// lost makes the next call negotiate, on a fresh connection.
func (e *Engine) lost() {
	e.epoch.Add(1)
	e.bounded.CloseIdleConnections()
	e.long.CloseIdleConnections()
}

// classify finds the class of a foreign error and the words for it; lost means that the daemon did not answer.
func classify(err error) (message string, lost bool, kind error) {
	if err == nil {
		return "", false, nil
	}
	var known *runtime.Error
	if errors.As(err, &known) {
		return known.Message, errors.Is(known.Kind, runtime.ErrUnavailable), known.Kind
	}
	message = clean(strings.TrimPrefix(err.Error(), "Error response from daemon: "))
	if strings.HasPrefix(message, "<") { // a proxy or a web server in the daemon's place
		return "answered with a web page, not as a Docker daemon does", true, runtime.ErrUnavailable
	}
	switch {
	case errdefs.IsNotFound(err):
		return message, false, runtime.ErrNotFound
	case errdefs.IsConflict(err), errdefs.IsAlreadyExists(err):
		return message, false, runtime.ErrConflict
	case errdefs.IsInvalidArgument(err):
		return message, false, runtime.ErrInvalid
	case errdefs.IsNotImplemented(err), errdefs.IsUnauthorized(err), errdefs.IsPermissionDenied(err):
		return message, false, runtime.ErrUnsupported
	case errdefs.IsUnavailable(err):
		return message, true, runtime.ErrUnavailable
	case errdefs.IsInternal(err), errdefs.IsUnknown(err):
		return message, false, nil
	}
	if unreachable(err) {
		return message, true, runtime.ErrUnavailable
	}
	return message, false, nil
}

// unreachable reports whether err is that of a connection that failed, broke, or carried something else than the API.
func unreachable(err error) bool {
	var (
		urlErr    *url.Error
		netErr    net.Error
		opErr     *net.OpError
		syntaxErr *json.SyntaxError
		typeErr   *json.UnmarshalTypeError
	)
	return client.IsErrConnectionFailed(err) || errors.As(err, &urlErr) || errors.As(err, &netErr) || errors.As(err, &opErr) ||
		errors.As(err, &syntaxErr) || errors.As(err, &typeErr) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNREFUSED) ||
		errors.Is(err, context.DeadlineExceeded)
}

// kindOfStatus is the class of an HTTP status of 400 or more.
func kindOfStatus(status int) error {
	switch status {
	case http.StatusNotFound:
		return runtime.ErrNotFound
	case http.StatusConflict:
		return runtime.ErrConflict
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return runtime.ErrUnsupported // by the daemon, or by a proxy that guards its socket
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return runtime.ErrUnavailable
	case http.StatusInternalServerError:
		return nil
	}
	if status < http.StatusInternalServerError {
		return runtime.ErrInvalid
	}
	return nil
}

// clean makes a daemon's text fit for one line.
func clean(text string) string {
	text = strings.TrimSpace(text)
	if len(text) > maxMessage {
		text = strings.ToValidUTF8(text[:maxMessage], "") + "..."
	}
	return text
}
