package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/droverhq/drover/cli/client"
	"github.com/droverhq/drover/cli/ui"
	"github.com/droverhq/drover/utils/backoff"
)

const (
	getOverlap = 64 << 10 // of what is there that a resumed download compares
	getTries   = 5        // connections that bring nothing before a download gives up
)

func (a *app) getCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "get HOST PATH",
		Short: "Download a log file of a host",
		Long: `Downloads a log file of a host to the current folder. A download that broke off leaves FILE.part behind, and the same
command goes on from there, if the file on the host is still the one that was begun. The host needs app.logs.port.`,
		Example: "  drover get web-1 /var/log/app/app.log\n  drover get web-1 app.log -o - | less",
		Args:    takes("HOST", "PATH"),
		RunE: a.operate(func(ctx context.Context, c *client.Client, args []string) error {
			h, err := c.Host(ctx, args[0])
			if err != nil {
				return err
			}
			d := &download{c: c, path: client.LogFile(h.ID, "download", args[1])}
			if output == "-" {
				return fileError(d.stream(ctx, a.env.Stdout))
			}
			if output == "" {
				output = path.Base(args[1])
			}
			return fileError(a.get(ctx, d, output))
		}),
		ValidArgsFunction: a.completeHosts,
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "file to write, - is standard output")
	return cmd
}

// A download is a file of a host on its way.
type download struct {
	c     *client.Client
	path  string
	seen  func(have, total int64)
	total int64
}

// stream copies the file to w, without a second try.
func (d *download) stream(ctx context.Context, w io.Writer) error {
	resp, err := d.c.Open(ctx, d.path, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(w, resp.Body)
	return err
}

func (a *app) get(ctx context.Context, d *download, name string) error {
	if fi, err := os.Stat(name); err == nil && fi.IsDir() {
		name = filepath.Join(name, path.Base(d.path))
	}
	part := name + ".part"
	f, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	p := a.progress()
	begin := time.Now()
	first := int64(-1)
	d.seen = func(have, total int64) {
		if first < 0 {
			first = have
		}
		rate := float64(have-first) / max(time.Since(begin).Seconds(), 0.001)
		p.Set("%s %s  %s of %s  %s/s", path.Base(name), bar(have, total), bytesText(have), bytesText(total), bytesText(int64(rate)))
	}
	err = d.fetch(ctx, f)
	p.Stop()
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		if fi, serr := os.Stat(part); serr == nil && fi.Size() == 0 {
			return errors.Join(err, os.Remove(part))
		} else if serr == nil {
			a.note("%s of it are in %s; the same command goes on from there.", bytesText(fi.Size()), part)
		}
		return err
	}
	if err := os.Rename(part, name); err != nil {
		return err
	}
	return a.out.Print(map[string]any{"file": name, "bytes": d.total}, func() error {
		_, err := fmt.Fprintf(a.out.Out, "%s  %s\n", ui.Clean(name), bytesText(d.total))
		return err
	})
}

// bar draws how far it is.
func bar(have, total int64) string {
	const width = 24
	n := width
	if total > 0 {
		n = int(min(have, total) * width / total)
	}
	return "[" + strings.Repeat("#", n) + strings.Repeat(".", width-n) + "]"
}

// fetch fills f, going on after what it holds, across lost connections.
func (d *download) fetch(ctx context.Context, f *os.File) error {
	for failed := 0; ; {
		before, err := f.Seek(0, io.SeekEnd)
		if err != nil {
			return err
		}
		err = d.attempt(ctx, f, before)
		if err == nil || ctx.Err() != nil {
			return err
		}
		var answer *client.APIError
		if errors.As(err, &answer) && answer.Status != http.StatusBadGateway {
			return err
		}
		if after, serr := f.Seek(0, io.SeekEnd); serr == nil && after > before {
			failed = 0
		}
		if failed++; failed == getTries {
			return err
		}
		if backoff.Sleep(ctx, time.Duration(failed)*500*time.Millisecond) != nil {
			return err
		}
	}
}

// attempt is one connection. A file that is not what have bytes were taken from begins anew.
func (d *download) attempt(ctx context.Context, f *os.File, have int64) error {
	overlap := min(have, getOverlap)
	header := http.Header{}
	if have > 0 {
		header.Set("Range", "bytes="+strconv.FormatInt(have-overlap, 10)+"-")
	}
	resp, err := d.c.Open(ctx, d.path, header)
	var answer *client.APIError
	if have > 0 && errors.As(err, &answer) && answer.Status == http.StatusRequestedRangeNotSatisfiable {
		return d.anew(ctx, f)
	}
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	d.total = resp.ContentLength
	switch {
	case resp.StatusCode != http.StatusPartialContent:
		have = 0
		if err := f.Truncate(0); err != nil {
			return err
		}
	default:
		d.total = have - overlap + resp.ContentLength
		same, err := matches(f, resp.Body, have-overlap, overlap)
		if err != nil {
			return err
		}
		if !same {
			return d.anew(ctx, f)
		}
	}
	if _, err := f.Seek(have, io.SeekStart); err != nil {
		return err
	}
	buf := make([]byte, 256<<10)
	for {
		n, err := resp.Body.Read(buf)
		if n > 0 {
			if _, werr := f.Write(buf[:n]); werr != nil {
				return werr
			}
			have += int64(n)
			d.seen(have, max(d.total, have))
		}
		if errors.Is(err, io.EOF) {
			d.total = have
			return nil
		}
		if err != nil {
			return fmt.Errorf("the download broke off after %s: %w", bytesText(have), err)
		}
	}
}

func (d *download) anew(ctx context.Context, f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	return d.attempt(ctx, f, 0)
}

// matches reads n bytes and compares them with those of f at off.
func matches(f io.ReaderAt, r io.Reader, off, n int64) (bool, error) {
	got, want := make([]byte, n), make([]byte, n)
	if _, err := io.ReadFull(r, got); err != nil {
		return false, err
	}
	if _, err := f.ReadAt(want, off); err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	return bytes.Equal(got, want), nil
}
