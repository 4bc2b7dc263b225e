package api

import (
	_ "embed" // for the bootstrap script
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"

	"github.com/droverhq/drover/server/pki"
	"github.com/droverhq/drover/server/store"
)

// bootstrapScript is what an original agent's container evaluates at its start: it hands the host over to Drover.
//
//go:embed bootstrap.sh
var bootstrapScript string

// isScript reports whether name is a script and no registration token.
func isScript(name string) bool { return name == "bootstrap" || name == "api.crt" || name == "ca.pem" }

// serveScript answers /v1/scripts/{name}, without authentication: the token in the path is one.
func (h *Handler) serveScript(w *recorder, r *http.Request, t *target) error {
	if !isGet(r) {
		return methodNotAllowed(r.Method)
	}
	switch name := t.segments[1]; name {
	case "api.crt":
		w.Header().Set("Content-Disposition", "attachment; filename=api.crt")
		w.Header().Set("Cache-Control", "private")
		writeText(w, "application/octet-stream", h.cfg.APICert)
	case "ca.pem":
		if h.cfg.CA == nil {
			return fail(http.StatusNotFound, "Not Found", "this server has no certificate authority of its own")
		}
		w.Header().Set("Content-Disposition", "attachment; filename=ca.pem")
		writeText(w, "application/octet-stream", h.cfg.CA)
	case "bootstrap":
		writeText(w, "text/plain; charset=utf-8", []byte(h.bootstrap(h.proxies.client(r))))
	default:
		return h.serveRegistrationScript(w, r, t, name)
	}
	return nil
}

func (h *Handler) serveRegistrationScript(w *recorder, r *http.Request, t *target, token string) error {
	client := h.proxies.client(r)
	counted := countedUser(registrationUser, token)
	if wait := h.failures.blocked(client, counted, token); wait > 0 {
		return tooMany(wait)
	}
	unknown := fail(http.StatusNotFound, "Not Found", "there is no such script or registration token")
	if !isToken(token) {
		h.failures.failed(client, counted)
		return unknown
	}
	_, err := h.store.CheckRegistrationToken(r.Context(), token)
	switch {
	case err == nil:
		h.failures.succeeded(client, counted, token)
	case errors.Is(err, store.ErrExpired):
		return fail(http.StatusGone, "Gone", "the registration token has expired")
	case errors.Is(err, store.ErrRevoked):
		return fail(http.StatusGone, "Gone", "the registration token was revoked")
	case errors.Is(err, store.ErrCredentials):
		h.failures.failed(client, counted)
		return unknown
	default:
		return err
	}
	version := t.version
	if base := h.agentBase(t.base); base != t.base {
		version = v1
	}
	writeText(w, "text/plain; charset=utf-8", []byte(registrationScript(token, h.agentBase(t.base)+"/"+version, client)))
	return nil
}

// registrationScript is Rancher's, to the letter.
func registrationScript(token, url string, client netip.Addr) string {
	ip := ""
	if client.IsValid() {
		ip = client.String()
	}
	return fmt.Sprintf(`#!/bin/sh

export CATTLE_REGISTRATION_ACCESS_KEY="%s"
export CATTLE_REGISTRATION_SECRET_KEY="%s"
export CATTLE_URL="%s"
export DETECTED_CATTLE_AGENT_IP="%s"
`, registrationUser, token, url, ip)
}

func (h *Handler) bootstrap(client netip.Addr) string {
	ip := ""
	if client.IsValid() {
		ip = client.String()
	}
	checksum := ""
	if h.cfg.CA != nil {
		checksum = pki.Checksum(h.cfg.CA)
	}
	return strings.NewReplacer("%IMAGE%", h.image(), "%CLIENT_IP%", ip, "%CA_CHECKSUM%", checksum, "%CERT%", string(h.cfg.CA)).
		Replace(bootstrapScript)
}

func writeText(w http.ResponseWriter, contentType string, body []byte) {
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(body)
}
