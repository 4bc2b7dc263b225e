package containerlog

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/droverhq/drover/runtime"
)

// A Reader reads logs. It is safe for concurrent use and holds no resources between calls.
type Reader struct {
	cfg Config
	hub hub
	// deaf makes follows poll; tests set it, the world does it by running out of inotify instances.
	deaf bool
}

// New returns a reader and does no I/O.
func New(cfg Config) *Reader {
	if cfg.Poll <= 0 {
		cfg.Poll = defaultPoll
	}
	return &Reader{cfg: cfg}
}

// A source is where the log of one container is.
type source struct {
	base   string // path of the current file
	keep   int    // how many files dockerd shows
	format func() format
	status runtime.ContainerStatus
}

// errNoFile says that the log has to be read through the fallback.
var errNoFile = errors.New("the log is not in a file that can be read here")

func (r *Reader) locate(ctx context.Context, id string) (source, error) {
	st, err := r.cfg.Containers.State(ctx, id)
	if err != nil {
		return source{}, err
	}
	src := source{status: st}
	switch {
	case st.LogDriver == "json-file" && st.LogPath != "":
		src.base = st.LogPath
		src.base = filepath.Join(r.cfg.Root, src.base)
		src.keep = keptFiles(filepath.Dir(src.base), 1)
		src.format = func() format { return &jsonLines{} }
	case st.LogDriver == "local" && r.cfg.DataRoot != nil:
		root, err := r.cfg.DataRoot(ctx)
		if err != nil {
			return source{}, err
		}
		folder := filepath.Join(r.cfg.Root, root, "containers", st.ID)
		src.base = filepath.Join(folder, "local-logs", "container.log")
		src.keep = keptFiles(folder, 5)
		src.format = func() format { return localRecords{} }
	default:
		return src, errNoFile
	}
	return src, nil
}

// Entries yields the entries that q asks for, in order, from this goroutine, until the end of the log or, with Follow,
// the end of the container, or until ctx ends or yield returns an error, which it then returns. A container that does
// not exist is runtime.ErrNotFound; a Query that makes no sense is runtime.ErrInvalid.
func (r *Reader) Entries(ctx context.Context, id string, q Query, yield func(*Entry) error) error {
	p, err := newPipeline(ctx, q, yield)
	if err != nil {
		return err
	}
	src, err := r.fromFiles(ctx, id, p)
	if errors.Is(err, errNoFile) {
		return r.fallback(ctx, id, src, p)
	}
	return err
}

// fromFiles reads the log from its files, or returns errNoFile, before anything was yielded.
func (r *Reader) fromFiles(ctx context.Context, id string, p *pipeline) (source, error) {
	src, err := r.locate(ctx, id)
	if err != nil {
		return src, err
	}
	files, err := openSet(src.base, src.keep)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission), errors.Is(err, fs.ErrInvalid):
		// A container that never started has no file; a driver may name one that is not here.
		return src, errNoFile
	case err != nil:
		return src, explainOpen(err)
	}
	if err = r.read(ctx, src, files, p); errors.Is(err, errEnough) {
		err = p.end()
	}
	return src, err
}

// read yields the files' entries and goes on with those that come. It closes the files.
func (r *Reader) read(ctx context.Context, src source, files []*logFile, p *pipeline) error {
	defer func() { closeAll(files) }()
	format := src.format()
	if j, ok := format.(*jsonLines); ok {
		p.prefilter(j)
	}
	segments, err := plan(src, files, p)
	if err != nil {
		return err
	}
	var s scanner
	last := files[len(files)-1]
	f := &follower{reader: r, src: src, file: last, scan: &s, pipe: p}
	if p.q.Follow {
		files = files[:len(files)-1] // the follower owns the last one
		defer f.start(ctx)()
	}
	for _, seg := range segments {
		in, err := seg.file.reader(seg.off)
		if err != nil {
			return explainOpen(err)
		}
		if seg.file == last && !p.q.Follow {
			// A container that never stops writing must not make the history endless.
			in = io.LimitReader(in, seg.file.size-seg.off)
		}
		s.reset(format, in, seg.file.id, seg.off)
		if err := p.drain(&s, seg.skip); err != nil {
			return err
		}
	}
	if p.byTime {
		p.since = 0 // what comes is new, whatever the clock says
	}
	if !p.q.Follow {
		return p.end()
	}
	return f.run(ctx)
}

// A segment is a file and where to begin in it.
type segment struct {
	file *logFile
	off  int64
	skip int // entries to leave out first, where the offset is not known
}

// plan says what to read of files for p's query.
func plan(src source, files []*logFile, p *pipeline) ([]segment, error) {
	switch {
	case p.q.Cursor != "":
		return planCursor(src, files, p)
	case p.q.Tail < 0:
		return planNone(src, files[len(files)-1]), nil
	case p.q.Tail > 0:
		return planTail(src, files, p.q.Tail)
	case p.since > 0:
		return planSince(src, files, p.since-margin.Nanoseconds())
	}
	return whole(files), nil
}

// planNone begins after the last complete record.
func planNone(src source, last *logFile) []segment {
	seg := segment{file: last, off: last.size}
	if _, ok := src.format().(*jsonLines); ok {
		if off, _, err := jsonTail(last.f, last.size, 0); err == nil {
			seg.off = off
		}
	}
	return []segment{seg}
}

func whole(files []*logFile) []segment {
	segments := make([]segment, len(files))
	for i, l := range files {
		segments[i] = segment{file: l}
	}
	return segments
}

func planCursor(src source, files []*logFile, p *pipeline) ([]segment, error) {
	for i, l := range files {
		if l.id == p.after.id && !l.gz && boundary(src, l, p.after.off) {
			p.byTime = false
			segments := whole(files[i:])
			segments[0].off = p.after.off
			return segments, nil
		}
	}
	// The file was compressed, truncated or removed: its entries are told by their time.
	p.byTime = true
	p.since = p.after.nano + 1
	return planSince(src, files, p.after.nano-margin.Nanoseconds())
}

// boundary reports whether a record may begin at off.
func boundary(src source, l *logFile, off int64) bool {
	if off > l.size {
		return false
	}
	if _, ok := src.format().(*jsonLines); !ok || off == 0 {
		return true
	}
	var b [1]byte
	_, err := l.f.ReadAt(b[:], off-1)
	return err == nil && b[0] == '\n'
}

func planTail(src source, files []*logFile, n int) ([]segment, error) {
	var segments []segment
	_, isJSON := src.format().(*jsonLines)
	for _, l := range slices.Backward(files) {
		if n == 0 {
			break
		}
		seg := segment{file: l}
		var count int
		var err error
		switch {
		case l.gz:
			count, err = countRecords(src.format(), l)
			seg.skip = max(0, count-n)
			count -= seg.skip
		case isJSON:
			seg.off, count, err = jsonTail(l.f, l.size, n)
		default:
			if seg.off, count, err = localTail(l.f, l.size, n); errors.Is(err, errTorn) {
				count, err = countRecords(src.format(), l)
				seg.off, seg.skip = 0, max(0, count-n)
				count -= seg.skip
			}
		}
		if err != nil {
			return nil, explainOpen(err)
		}
		segments = append(segments, seg)
		n -= count
	}
	slices.Reverse(segments)
	return segments, nil
}

// countRecords reads all of l.
func countRecords(f format, l *logFile) (int, error) {
	in, err := l.reader(0)
	if err != nil {
		return 0, err
	}
	var s scanner
	s.reset(f, io.LimitReader(in, 1<<40), l.id, 0)
	var e Entry
	for n := 0; ; n++ {
		if err := s.next(&e); err != nil {
			if err == io.EOF || l.gz {
				return n, nil // a compressed file that is cut yields what it has
			}
			return n, err
		}
	}
}

// planSince leaves out what is older than nano.
func planSince(src source, files []*logFile, nano int64) ([]segment, error) {
	_, isJSON := src.format().(*jsonLines)
	first := 0
	for i, l := range files[:len(files)-1] {
		var last int64
		ok := false
		switch {
		case l.gz:
			last, ok = l.compressedUntil()
		case isJSON:
			last, ok = jsonLast(l.f, l.size)
		}
		if ok && last < nano {
			first = i + 1
		}
	}
	segments := whole(files[first:])
	if isJSON && !segments[0].file.gz {
		off, err := jsonSince(segments[0].file.f, segments[0].file.size, nano)
		if err != nil {
			return nil, explainOpen(err)
		}
		segments[0].off = off
	}
	return segments, nil
}
