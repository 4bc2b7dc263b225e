package service

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path"
	"time"

	"github.com/droverhq/drover/runtime"
)

// HeaderFileStat carries a File, as JSON in base64, in the answer to HEAD and GET of a file.
const HeaderFileStat = "Drover-File-Stat"

// A File describes a file of a container.
type File struct {
	Name       string    `json:"name"`
	Path       string    `json:"path"`
	Type       string    `json:"type"` // file, directory, symlink, device, pipe, socket
	Size       int64     `json:"size"`
	Mode       string    `json:"mode"` // "0644", with the bits for set-uid, set-gid and sticky
	Modified   time.Time `json:"modified"`
	LinkTarget string    `json:"linkTarget,omitempty"`
}

// filePath is the path in the container that a request names: behind the container, or as the parameter path, which
// survives what HTTP does to paths.
func filePath(r *http.Request, q *query) string {
	if p := q.Get("path"); p != "" {
		return p
	}
	return "/" + r.PathValue("path")
}

// serveFile answers GET with a tar stream, or with a list of a directory, and HEAD with what the file is.
func (s *Service) serveFile(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	name, list := filePath(r, q), q.flag("list")
	if q.err != nil {
		return q.err
	}
	engine := capability[runtime.Copier](s.cfg.Engine)
	if engine == nil {
		return unsupported("files")
	}
	st, err := s.container(r)
	if err != nil {
		return err
	}
	if err := s.allow(r, Action{Verb: VerbRead, Container: st, Path: name}); err != nil {
		return err
	}
	if r.Method == http.MethodHead {
		stat, err := engine.StatPath(r.Context(), st.ID, name)
		if err != nil {
			return err
		}
		return statAnswer(w, name, stat)
	}
	if list {
		files, truncated, err := s.list(r.Context(), engine, st, name)
		if err != nil {
			return err
		}
		return writeJSON(w, map[string]any{"type": "collection", "data": files, "truncated": truncated})
	}
	archive, stat, err := engine.CopyFrom(r.Context(), st.ID, name)
	if err != nil {
		return err
	}
	defer archive.Close()
	if err := statAnswer(w, name, stat); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/x-tar")
	_, err = io.CopyBuffer(struct{ io.Writer }{w}, archive, make([]byte, 64<<10))
	return err
}

// putFile unpacks the tar stream in the body into a directory.
func (s *Service) putFile(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	name := filePath(r, q)
	if q.err != nil {
		return q.err
	}
	engine := capability[runtime.Copier](s.cfg.Engine)
	if engine == nil {
		return unsupported("files")
	}
	st, err := s.container(r)
	if err != nil {
		return err
	}
	if err := s.allow(r, Action{Verb: VerbWrite, Container: st, Path: name}); err != nil {
		return err
	}
	if err := engine.CopyTo(r.Context(), st.ID, name, r.Body); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func statAnswer(w http.ResponseWriter, name string, stat runtime.FileStat) error {
	b, err := json.Marshal(fileOf(name, stat))
	if err != nil {
		return err
	}
	w.Header().Set(HeaderFileStat, base64.StdEncoding.EncodeToString(b))
	w.Header().Set("Cache-Control", "no-store")
	return nil
}

func fileOf(name string, stat runtime.FileStat) File {
	f := File{
		Name: stat.Name, Path: path.Clean(name), Size: stat.Size, Mode: modeOf(stat.Mode), Modified: stat.Mtime, LinkTarget: stat.LinkTarget,
		Type: "file",
	}
	for bit, kind := range map[os.FileMode]string{
		os.ModeDir: "directory", os.ModeSymlink: "symlink", os.ModeDevice: "device", os.ModeNamedPipe: "pipe", os.ModeSocket: "socket",
	} {
		if stat.Mode&bit != 0 {
			f.Type = kind
		}
	}
	return f
}

// modeOf prints a mode as chmod takes it.
func modeOf(m os.FileMode) string {
	bits := uint32(m.Perm())
	for flag, bit := range map[os.FileMode]uint32{os.ModeSetuid: 0o4000, os.ModeSetgid: 0o2000, os.ModeSticky: 0o1000} {
		if m&flag != 0 {
			bits |= bit
		}
	}
	const digits = "01234567"
	return string([]byte{digits[bits>>9&7], digits[bits>>6&7], digits[bits>>3&7], digits[bits&7]})
}
