package logs

import (
	"archive/zip"
	"bufio"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/time/rate"
)

// A FileInfo is one entry of a directory listing.
type FileInfo struct {
	Name    string    `json:"name"`
	Path    string    `json:"path"`
	Type    string    `json:"type"` // file, directory, link, other
	Size    int64     `json:"size"` // bytes
	Mode    string    `json:"mode"`
	ModTime time.Time `json:"modified"`
}

// status maps an error to an HTTP status and one line.
func status(w http.ResponseWriter, err error) {
	var refusal *Refusal
	var limit *LimitError
	code := http.StatusInternalServerError
	switch {
	case errors.As(err, &refusal):
		code = http.StatusBadRequest
	case errors.As(err, &limit):
		code = http.StatusTooManyRequests
		if limit.Key == keyMaxRead {
			code = http.StatusRequestEntityTooLarge
		}
	case errors.Is(err, fs.ErrNotExist):
		code = http.StatusNotFound
	case errors.Is(err, ErrOutside), errors.Is(err, fs.ErrPermission):
		code = http.StatusForbidden
	default:
		var perr *fs.PathError
		if errors.As(err, &perr) {
			code = http.StatusBadRequest
		}
	}
	fail(w, code, "%s", err)
}

// named returns the absolute path that a URL names after prefix: as it stands, or below the first root of jail if it is
// in none and there is such a file.
func named(r *http.Request, prefix string, jail Jail) string {
	if name := strings.TrimPrefix(r.URL.Path, prefix); jail.isPod(name) {
		return strings.TrimSuffix(name, "/")
	}
	name := path.Clean("/" + strings.TrimPrefix(r.URL.Path, prefix))
	if _, _, ok := jail.locate(name); !ok && name != "/" && len(jail.Roots) > 0 {
		if relative := path.Join(jail.Roots[0], name); exists(jail, relative) {
			return relative
		}
	}
	return name
}

func exists(jail Jail, name string) bool {
	_, err := jail.Stat(name)
	return err == nil
}

// files lists a directory, or the roots for an empty path.
func (d *Door) files(w http.ResponseWriter, r *http.Request) {
	s := d.cfg.Service
	name := named(r, "/files/", s.jail)
	entries := []FileInfo{}
	if name == "/" {
		for _, root := range s.cfg.Roots {
			if fi, err := s.jail.Stat(root); err == nil {
				entry := describe("/", fi)
				entry.Path = path.Clean(root)
				entry.Name = path.Base(entry.Path)
				entries = append(entries, entry)
			}
		}
		if s.cfg.Pods != nil {
			entry := describe("/", podEntry{name: podPrefix})
			entry.Path = podPrefix
			entries = append(entries, entry)
		}
	} else {
		infos, err := s.jail.ReadDir(name, maxDirEntries)
		if err != nil {
			status(w, err)
			return
		}
		for _, fi := range infos {
			entry := describe(name, fi)
			if name == podPrefix {
				entry.Path = podPrefix + fi.Name()
			}
			entries = append(entries, entry)
		}
	}
	d.audit(Record{Time: time.Now(), Who: caller(r).Name, Client: address(r), Node: d.cfg.Node, Command: "GET " + r.URL.Path}, nil)
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"type": "collection", "path": name, "data": entries})
}

func describe(dir string, fi fs.FileInfo) FileInfo {
	kind := "other"
	switch {
	case fi.Mode().IsRegular():
		kind = "file"
	case fi.IsDir():
		kind = "directory"
	case fi.Mode()&fs.ModeSymlink != 0:
		kind = "link"
	}
	return FileInfo{
		Name: fi.Name(), Path: path.Join(dir, fi.Name()), Type: kind, Size: fi.Size(), Mode: lsMode(fi.Mode()), ModTime: fi.ModTime().UTC(),
	}
}

// query runs a structured request and streams its lines; what the commands complain of comes in trailers.
func (d *Door) query(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxMessage))
	if err != nil {
		fail(w, http.StatusRequestEntityTooLarge, "the request is larger than %d bytes", maxMessage)
		return
	}
	text, p, err := d.parse(r.Context(), body, false)
	if err == nil && p == nil {
		err = &Refusal{Reason: "the request is empty"}
	}
	if err != nil {
		status(w, err)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Trailer", "Drover-Exit, Drover-Error")
	var complaints []string
	out := &flushing{w: w, c: http.NewResponseController(w)}
	result, err := d.run(r.Context(), caller(r), address(r), text, p, Sink{Out: out, Err: func(line string) {
		if len(complaints) < 20 {
			complaints = append(complaints, line)
		}
	}})
	if err != nil {
		complaints = append(complaints, err.Error())
		if !out.written {
			status(w, err)
			return
		}
	}
	w.Header().Set("Drover-Exit", fmt.Sprint(result.ExitCode))
	w.Header().Set("Drover-Error", strings.Join(complaints, "; "))
}

// flushing hands every write on at once, so that a follow is seen as it goes.
type flushing struct {
	w       io.Writer
	c       *http.ResponseController
	written bool
}

func (f *flushing) Write(p []byte) (int, error) {
	f.written = true
	n, err := f.w.Write(p)
	if err == nil {
		err = f.c.Flush()
	}
	return n, err
}

// download sends a file with Range and resume; compressed on the fly with ?compress=gz|zst; the lines of a time range
// with ?since= and ?until=; several files (?path= repeated, patterns allowed) as one zip archive.
func (d *Door) download(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	start := time.Now()
	client := address(r)
	leave, err := d.enter(caller(r).Name + "@" + client)
	if err != nil {
		status(w, err)
		return
	}
	defer leave()
	limits := d.cfg.Service.rules.Load().limits
	counted := &countingWriter{ResponseWriter: w, ctx: r.Context(), pace: limits.pace()}
	name := named(r, "/download/", d.cfg.Service.jail)
	if more := q["path"]; len(more) > 0 {
		if name != "/" {
			more = append([]string{name}, more...)
		}
		err = d.archive(r.Context(), counted, more)
	} else if q.Get("since") != "" || q.Get("until") != "" {
		err = d.downloadRange(r.Context(), counted, name, q.Get("since"), q.Get("until"), q.Get("compress"))
	} else {
		err = d.downloadFile(counted, r, name, q.Get("compress"))
	}
	d.audit(Record{
		Time: start, Who: caller(r).Name, Client: client, Node: d.cfg.Node, Command: "GET " + r.URL.RequestURI(),
		Sent: counted.n, Duration: time.Since(start),
	}, err)
	if err != nil && !counted.wrote {
		status(w, err)
	} else if err != nil {
		panic(http.ErrAbortHandler) // the client must not take a cut file for a whole one
	}
}

type countingWriter struct {
	http.ResponseWriter
	ctx   context.Context
	pace  *rate.Limiter // nil: as fast as it goes
	n     int64
	wrote bool
}

func (c *countingWriter) WriteHeader(code int) {
	c.wrote = true
	c.ResponseWriter.WriteHeader(code)
}

func (c *countingWriter) Write(p []byte) (int, error) {
	c.wrote = true
	if err := waitFor(c.ctx, c.pace, len(p)); err != nil {
		return 0, err
	}
	n, err := c.ResponseWriter.Write(p)
	c.n += int64(n)
	return n, err
}

func attachment(w http.ResponseWriter, name string) {
	w.Header().Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": path.Base(name)}))
	w.Header().Set("X-Content-Type-Options", "nosniff")
}

func (d *Door) downloadFile(w http.ResponseWriter, r *http.Request, name, compress string) error {
	f, err := d.cfg.Service.jail.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if limit := d.cfg.Service.rules.Load().limits.MaxRead; limit > 0 && fi.Size() > limit && (compress != "" || r.Header.Get("Range") == "") {
		return readLimit(limit)
	}
	if compress != "" {
		return compressed(w, name, compress, func(out io.Writer) error {
			_, err := io.Copy(out, io.LimitReader(f, fi.Size()))
			return err
		})
	}
	attachment(w, name)
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", fi.ModTime(), io.NewSectionReader(f, 0, fi.Size()))
	return nil
}

// compressed sends what write writes as gzip or zstd.
func compressed(w http.ResponseWriter, name, kind string, write func(io.Writer) error) error {
	var enc io.WriteCloser
	switch kind {
	case "gz":
		w.Header().Set("Content-Type", "application/gzip")
		enc = gzip.NewWriter(w)
	case "zst":
		w.Header().Set("Content-Type", "application/zstd")
		z, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
		if err != nil {
			return err
		}
		enc = z
	case "":
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		return write(w)
	default:
		return &Refusal{Reason: fmt.Sprintf("compress=%q is neither gz nor zst", kind)}
	}
	attachment(w, name+"."+kind)
	if err := write(enc); err != nil {
		return err
	}
	return enc.Close()
}

func (d *Door) downloadRange(ctx context.Context, w http.ResponseWriter, name, since, until, compress string) error {
	req := Request{Mode: "cat", Path: name, Since: since, Until: until}
	p, err := req.Pipeline(time.Now())
	if err != nil {
		return err
	}
	if f, err := d.cfg.Service.jail.Open(name); err != nil {
		return err
	} else if err := f.Close(); err != nil {
		return err
	}
	return compressed(w, name, compress, func(out io.Writer) error {
		_, err := d.cfg.Service.Run(ctx, p, Sink{Out: out, Err: func(string) {}})
		return err
	})
}

// archive sends the named files as one zip.
func (d *Door) archive(ctx context.Context, w http.ResponseWriter, patterns []string) error {
	s := d.cfg.Service
	var names []string
	for _, p := range patterns {
		found, err := s.jail.Glob(s.absolute(p), s.rules.Load().limits.MaxFiles)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return &fs.PathError{Op: "open", Path: p, Err: fs.ErrNotExist}
		}
		names = append(names, found...)
	}
	attachment(w, "logs-"+d.cfg.Node+".zip")
	w.Header().Set("Content-Type", "application/zip")
	buffered := bufio.NewWriterSize(w, blockSize)
	z := zip.NewWriter(buffered)
	m := &meter{max: s.rules.Load().limits.MaxRead}
	for _, name := range names {
		if err := addToArchive(ctx, z, s.jail, m, name); err != nil {
			return err
		}
	}
	if err := z.Close(); err != nil {
		return err
	}
	return buffered.Flush()
}

func addToArchive(ctx context.Context, z *zip.Writer, jail Jail, m *meter, name string) error {
	f, err := jail.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	inside := strings.TrimPrefix(name, "/")
	if jail.isPod(name) {
		inside = strings.ReplaceAll(name, ":", "/") // which some systems take in no name
	}
	out, err := z.CreateHeader(&zip.FileHeader{Name: inside, Method: zip.Deflate, Modified: fi.ModTime()})
	if err != nil {
		return err
	}
	_, err = io.Copy(out, &metered{ctx: ctx, ReadCloser: io.NopCloser(io.LimitReader(f, fi.Size())), meter: m})
	return err
}

// stdin appends the body to a file below the stdin roots.
func (d *Door) stdin(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxMessage))
	if err != nil {
		fail(w, http.StatusRequestEntityTooLarge, "the text is larger than %d bytes", maxMessage)
		return
	}
	name := named(r, "/stdin/", d.cfg.Service.append)
	if caller(r).ReadOnly {
		err = errReadOnly()
	} else {
		err = d.cfg.Service.Append(name, body)
	}
	d.audit(Record{Time: time.Now(), Who: caller(r).Name, Client: address(r), Node: d.cfg.Node, Command: "POST " + r.URL.Path, Read: int64(len(body))}, err)
	if err != nil {
		status(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
