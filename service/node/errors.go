package node

import (
	"encoding/json"
	"errors"
	"net/http"

	"github.com/droverhq/drover/runtime"
)

// A refusal is an error with its status.
type refusal struct {
	status  int
	message string
}

func (r *refusal) Error() string { return r.message }

// A status is a metav1.Status, which the clients of Kubernetes know how to read.
type status struct {
	Kind       string   `json:"kind"`
	APIVersion string   `json:"apiVersion"`
	Metadata   struct{} `json:"metadata"`
	Status     string   `json:"status"`
	Message    string   `json:"message"`
	Reason     string   `json:"reason"`
	Code       int      `json:"code"`
}

// reasons are the names that Kubernetes has for what went wrong.
func reason(code int) string {
	switch code {
	case http.StatusUnauthorized:
		return "Unauthorized"
	case http.StatusForbidden:
		return "Forbidden"
	case http.StatusNotFound:
		return "NotFound"
	case http.StatusConflict:
		return "Conflict"
	case http.StatusBadRequest, http.StatusUpgradeRequired:
		return "BadRequest"
	case http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return "MethodNotAllowed"
	case http.StatusTooManyRequests:
		return "TooManyRequests"
	case http.StatusServiceUnavailable:
		return "ServiceUnavailable"
	}
	return "InternalError"
}

func codeOf(err error) int {
	var r *refusal
	if errors.As(err, &r) {
		return r.status
	}
	for _, class := range []struct {
		err  error
		code int
	}{
		{runtime.ErrNotFound, http.StatusNotFound},
		{runtime.ErrConflict, http.StatusConflict},
		{runtime.ErrInvalid, http.StatusBadRequest},
		{runtime.ErrUnsupported, http.StatusNotImplemented},
		{runtime.ErrUnavailable, http.StatusServiceUnavailable},
		{runtime.ErrMultiBiz, http.StatusBadRequest},
		{runtime.ErrNoBiz, http.StatusNotFound},
	} {
		if errors.Is(err, class.err) {
			return class.code
		}
	}
	return http.StatusInternalServerError
}

func writeStatus(w http.ResponseWriter, err error) { writeCode(w, codeOf(err), err.Error()) }

func writeCode(w http.ResponseWriter, code int, message string) {
	h := w.Header()
	h.Del("Content-Length")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Type", "application/json")
	if code == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", "Bearer")
	}
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(status{
		Kind: "Status", APIVersion: "v1", Status: "Failure", Message: message, Reason: reason(code), Code: code,
	}) // whoever is gone needs no answer
}

func writeJSON(w http.ResponseWriter, v any) error {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(v)
}

func invalid(message string) error { return &runtime.Error{Kind: runtime.ErrInvalid, Message: message} }

// kubeErrors turns the errors of package service into those that the clients of Kubernetes read.
type kubeErrors struct {
	http.ResponseWriter
	code int // of an error whose body is still to come
}

// Unwrap is for http.ResponseController.
func (k *kubeErrors) Unwrap() http.ResponseWriter { return k.ResponseWriter }

func (k *kubeErrors) WriteHeader(code int) {
	if code >= 400 && k.Header().Get("Content-Type") == "application/json" {
		k.code = code
		return
	}
	k.ResponseWriter.WriteHeader(code)
}

// Write takes the body of an error in one piece, as a JSON encoder writes it.
func (k *kubeErrors) Write(p []byte) (int, error) {
	if k.code == 0 {
		return k.ResponseWriter.Write(p)
	}
	var body struct{ Message string }
	if json.Unmarshal(p, &body) != nil || body.Message == "" {
		body.Message = http.StatusText(k.code)
	}
	writeCode(k.ResponseWriter, k.code, body.Message)
	k.code = 0
	return len(p), nil
}

// flush writes an error that came without a body.
func (k *kubeErrors) flush() {
	if k.code != 0 {
		writeCode(k.ResponseWriter, k.code, http.StatusText(k.code))
		k.code = 0
	}
}
