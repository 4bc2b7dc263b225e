package service

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/droverhq/drover/runtime"
)

// forwardDial bounds the dial to a port of a container.
const forwardDial = 10 * time.Second

// serveForward connects the request, upgraded to "tcp", with a TCP port of a container. Either side may end its half.
func (s *Service) serveForward(w http.ResponseWriter, r *http.Request) error {
	port, err := strconv.Atoi(r.PathValue("port"))
	if err != nil || port < 1 || port > 65535 {
		return invalid("port %.20q: want 1 to 65535", r.PathValue("port"))
	}
	if !strings.EqualFold(r.Header.Get("Upgrade"), "tcp") {
		err := errors.New(`this is a stream: an upgrade to "tcp" is needed`)
		w.Header().Set("Upgrade", "tcp")
		writeStatus(w, r, http.StatusUpgradeRequired, codeUpgrade, err)
		return answered{err}
	}
	st, err := s.container(r)
	if err != nil {
		return err
	}
	if err := s.allow(r, Action{Verb: VerbForward, Container: st, Port: port}); err != nil {
		return err
	}
	switch {
	case !st.Running:
		return conflict("container %s does not run: it is %s", st.Name, st.Status)
	case st.IP == "":
		return conflict("container %s has no network address of its own", st.Name)
	}
	address := net.JoinHostPort(st.IP, strconv.Itoa(port))
	dialer := net.Dialer{Timeout: forwardDial}
	to, err := dialer.DialContext(r.Context(), "tcp", address)
	if err != nil {
		return &runtime.Error{Kind: runtime.ErrUnavailable, Message: fmt.Sprintf("port %d of container %s: %v", port, st.Name, err), Cause: err}
	}
	defer to.Close()
	w.Header().Set("Connection", "Upgrade")
	w.Header().Set("Upgrade", "tcp")
	w.WriteHeader(http.StatusSwitchingProtocols)
	from, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return err
	}
	defer from.Close()
	splice(from, buffered.Reader, to)
	return nil
}

// splice copies both ways until both have ended, or one has broken.
func splice(from net.Conn, fromReader io.Reader, to net.Conn) {
	done := make(chan error, 2)
	go func() { done <- half(to, fromReader) }()
	go func() { done <- half(from, to) }()
	if err := <-done; err != nil {
		from.Close()
		to.Close()
	}
	<-done
}

// half copies one way and passes the end on.
func half(dst net.Conn, src io.Reader) error {
	if _, err := io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, make([]byte, 32<<10)); err != nil {
		return err
	}
	if c, ok := dst.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return errors.New("the connection cannot be closed in halves")
}
