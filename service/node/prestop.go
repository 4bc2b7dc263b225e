package node

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/droverhq/drover/service/token"
)

const (
	prestopBody    = 128 << 10
	prestopCommand = 64 << 10
	prestopFiles   = 4096
	prestopSuffix  = "-preStop.sh"
)

// prestop keeps what pods leave: a file a pod, which some other program of the host runs.
type prestop struct {
	dir  string
	pods Pods
	mu   sync.Mutex // one writer at a time, so that the count is right
}

// podName is what Kubernetes allows: nothing that leads anywhere as the name of a file.
var podName = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)
})

// An envelope is how the node agents before Drover answer.
type envelope struct {
	Code    int    `json:"code"` // 0, or -1 for an error
	Message string `json:"message"`
	Data    any    `json:"data"`
}

func (h *Handler) servePrestop(w http.ResponseWriter, r *http.Request) {
	answer := func(code int, e envelope) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(e) // whoever is gone needs no answer
	}
	if err := h.leave(r); err != nil {
		answer(codeOf(err), envelope{Code: -1, Message: err.Error()})
		return
	}
	answer(http.StatusOK, envelope{Message: "success", Data: ""})
}

func (h *Handler) leave(r *http.Request) error {
	c, err := h.admit(r, token.VerbPrestop)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, prestopBody+1))
	if err != nil {
		return invalid("the body broke off")
	}
	if len(body) > prestopBody {
		return &refusal{http.StatusRequestEntityTooLarge, fmt.Sprintf("a body of more than %d bytes", prestopBody)}
	}
	var req struct {
		PodName string `json:"podName"`
		Command string `json:"command"`
	}
	if err := json.Unmarshal(body, &req); err != nil {
		return invalid("the body is no JSON object with podName and command")
	}
	switch {
	case len(req.PodName) > 253-len(prestopSuffix) || !podName().MatchString(req.PodName):
		return invalid(fmt.Sprintf("podName %.64q: want the name of a pod", req.PodName))
	case strings.TrimSpace(req.Command) == "":
		return invalid("command is empty")
	case len(req.Command) > prestopCommand:
		return &refusal{http.StatusRequestEntityTooLarge, fmt.Sprintf("a command of more than %d bytes", prestopCommand)}
	case strings.ContainsRune(req.Command, 0):
		return invalid("command holds a zero byte")
	}
	target := Target{Pod: req.PodName}
	if _, name, _ := strings.Cut(c.Pod, "/"); c.Pod != "" && name != req.PodName {
		return c.refuse(token.VerbPrestop, target, "the token is for another pod")
	}
	if h.prestop.dir == "" {
		return &refusal{http.StatusNotImplemented, "this node keeps nothing for the end of pods: app.prestop.dir is empty"}
	}
	if err := h.prestop.store(req.PodName, req.Command); err != nil {
		c.log(token.VerbPrestop, target).WithError(err).Error("not stored")
		var r *refusal
		if errors.As(err, &r) {
			return err
		}
		return errors.New("it could not be stored; the log of the node says why")
	}
	c.log(token.VerbPrestop, target).Info("stored")
	return nil
}

// store writes the file of a pod, whole or not at all. The folder may be written to by others: a link in it is replaced,
// never followed.
func (p *prestop) store(pod, command string) (err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := os.MkdirAll(p.dir, 0o755); err != nil { //nolint:gosec // another program reads it
		return err
	}
	root, err := os.OpenRoot(p.dir)
	if err != nil {
		return err
	}
	defer root.Close()
	name := pod + prestopSuffix
	if err := p.room(root, name); err != nil {
		return err
	}
	salt := make([]byte, 8)
	_, _ = rand.Read(salt) // it never fails
	temp := ".prestop-" + hex.EncodeToString(salt)
	f, err := root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = root.Remove(temp)
		}
	}()
	_, err = f.WriteString(command)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return root.Rename(temp, name)
}

// room makes sure that one more file may be there. At the limit the oldest go whose pods are no more.
func (p *prestop) room(root *os.Root, name string) error {
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return err
	}
	type file struct {
		name string
		at   time.Time
	}
	var files []file
	for _, e := range entries {
		if e.Name() == name {
			return nil // it is replaced
		}
		info, err := e.Info()
		if err == nil && strings.HasPrefix(e.Name(), ".prestop-") && time.Since(info.ModTime()) > time.Hour {
			_ = root.Remove(e.Name()) // of a process that was killed
		}
		if err == nil && strings.HasSuffix(e.Name(), prestopSuffix) {
			files = append(files, file{e.Name(), info.ModTime()})
		}
	}
	if len(files) < prestopFiles {
		return nil
	}
	here := map[string]bool{}
	for _, pod := range p.pods.GetAllPods() {
		here[pod.Name+prestopSuffix] = true
	}
	slices.SortFunc(files, func(a, b file) int { return a.at.Compare(b.at) })
	for _, f := range files {
		if !here[f.name] {
			return root.Remove(f.name)
		}
	}
	return &refusal{http.StatusInsufficientStorage, fmt.Sprintf("%d pods have left something already", prestopFiles)}
}
