package api

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"
)

// apiError is an answer of status 400 and above. Code is Rancher's word for it, Message a sentence for people.
type apiError struct {
	Status     int
	Code       string
	Message    string
	Field      string        // the field at fault, where there is one
	RetryAfter time.Duration // sent as a header, where it is not 0
}

func (e *apiError) Error() string { return e.Message }

func fail(status int, code, format string, args ...any) *apiError {
	return &apiError{Status: status, Code: code, Message: fmt.Sprintf(format, args...)}
}

// invalid is the answer to a field that cannot be accepted.
func invalid(code, field, format string, args ...any) *apiError {
	return &apiError{Status: http.StatusUnprocessableEntity, Code: code, Field: field, Message: fmt.Sprintf(format, args...)}
}

func notFound() *apiError { return fail(http.StatusNotFound, "Not Found", "there is no such resource") }

func forbidden(format string, args ...any) *apiError {
	return fail(http.StatusForbidden, "Forbidden", format, args...)
}

func methodNotAllowed(method string) *apiError {
	return fail(http.StatusMethodNotAllowed, "Method Not Allowed", "%s is not possible here", method)
}

// asAPIError finds what to answer to err. What is no apiError is a fault of the server and told to its log alone.
func asAPIError(err error) *apiError {
	var e *apiError
	if errors.As(err, &e) {
		return e
	}
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return fail(http.StatusRequestEntityTooLarge, "Request Entity Too Large", "the body is larger than %d bytes", tooLarge.Limit)
	}
	return nil
}

// writeError answers a request with Rancher's error object.
func writeError(w http.ResponseWriter, e *apiError) {
	body := map[string]any{
		"id": uuid.NewString(), "type": "error", "links": map[string]string{}, "actions": map[string]string{},
		"status": e.Status, "code": e.Code, "message": e.Message, "detail": nil,
	}
	if e.Field != "" {
		body["fieldName"] = e.Field
	}
	if e.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int((e.RetryAfter+time.Second-1)/time.Second)))
	}
	writeJSON(w, e.Status, body)
}
