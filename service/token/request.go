package token

import (
	"net/http"
	"strings"
)

// ProtocolPrefix begins the WebSocket subprotocol that carries a token, for browsers, which cannot set headers.
const ProtocolPrefix = "drover.token."

// FromRequest returns the token of a request: of its header "Authorization: Bearer TOKEN", or of a WebSocket
// subprotocol "drover.token.TOKEN"; "" if there is none. Never of its URL, which proxies log.
func FromRequest(r *http.Request) string {
	if scheme, value, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok && strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(value)
	}
	for _, header := range r.Header.Values("Sec-WebSocket-Protocol") {
		for p := range strings.SplitSeq(header, ",") {
			if token, ok := strings.CutPrefix(strings.TrimSpace(p), ProtocolPrefix); ok {
				return token
			}
		}
	}
	return ""
}
