package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/droverhq/drover/cli/client"
	"github.com/droverhq/drover/cli/ui"
)

func (a *app) imageSaveCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "save IMAGE...", Short: "Save images of a host to a file",
		Long: `Saves images with their names as one tar, into a file of this machine or to standard output. 'drover image load' takes it,
and so does docker load. A file that exists is only replaced when all is there.`,
		Example: `  drover image save shop/api:1.4 -f api.tar
  drover image save shop/api:1.4 --host web-1 | drover image load --host web-2`,
		Args: takes("IMAGE..."),
	}
	host := a.addHost(cmd)
	cmd.Flags().StringVarP(&file, "file", "f", "-", `write to this file; "-" is standard output`)
	cmd.RunE = a.onHost(host, func(ctx context.Context, c *client.Client, h *client.Host, args []string) error {
		bars := a.newTransferBars()
		defer bars.stop()
		tell := func(n int64) { bars.set("Saving: "+size(n), nil) }
		if file == "-" {
			if isTerminal(a.env.Stdout) {
				return usagef("an image is nothing for a terminal: name a file with -f, or redirect the output")
			}
			return c.SaveImages(ctx, h.ID, args, &countingWriter{w: a.env.Stdout, each: tell})
		}
		return saveFile(file, func(w io.Writer) error {
			return c.SaveImages(ctx, h.ID, args, &countingWriter{w: w, each: tell})
		})
	})
	return cmd
}

// saveFile writes a file whole or not at all.
func saveFile(path string, write func(io.Writer) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".drover-save-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if err := errors.Join(write(f), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func (a *app) imageLoadCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "load", Short: "Load images from a file onto a host",
		Long:    `Loads what 'drover image save' or docker save wrote: a tar, plain or packed with gzip, bzip2 or zstd.`,
		Example: "  drover image load -f api.tar", Args: takes(),
	}
	host := a.addHost(cmd)
	cmd.Flags().StringVarP(&file, "file", "f", "-", `read this file; "-" is standard input`)
	cmd.RunE = a.onHost(host, func(ctx context.Context, c *client.Client, h *client.Host, _ []string) error {
		source, total, err := a.inputFile(file)
		if err != nil {
			return err
		}
		defer source.Close()
		bars := a.newTransferBars()
		defer bars.stop()
		names, err := c.LoadImages(ctx, h.ID, &countingReader{r: source, each: sending(bars, total)})
		bars.stop()
		if err != nil {
			return err
		}
		return a.out.Print(map[string]any{"images": names}, func() error {
			for _, name := range names {
				if _, err := fmt.Fprintln(a.out.Out, ui.Clean(name)); err != nil {
					return err
				}
			}
			return nil
		})
	})
	return cmd
}

// sending draws how much of total bytes was sent; 0 is unknown.
func sending(bars *transferBars, total int64) func(int64) {
	return func(n int64) {
		if total > 0 {
			bars.set("Sending", []ui.Bar{{Name: "file", Status: "Sending", Current: n, Total: total}})
			return
		}
		bars.set("Sending: "+size(n), nil)
	}
}

// inputFile opens a file, or standard input for "-", which a terminal must not be. total is 0 if unknown.
func (a *app) inputFile(path string) (r io.ReadCloser, total int64, err error) {
	if path == "-" {
		if f, ok := a.env.Stdin.(*os.File); ok && isTerminal(f) {
			return nil, 0, usagef("standard input is a terminal: name a file, or redirect the input")
		}
		return io.NopCloser(a.env.Stdin), 0, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = fmt.Errorf("%s is a directory", path)
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, info.Size(), nil
}

// A countingWriter tells after each Write how many bytes there were in all.
type countingWriter struct {
	w    io.Writer
	n    int64
	each func(total int64)
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	c.each(c.n)
	return n, err
}
