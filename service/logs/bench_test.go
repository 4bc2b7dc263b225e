package logs

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// bigFile writes about size bytes of log lines of 100 bytes, with one rare word.
func bigFile(b *testing.B, size int) string {
	b.Helper()
	name := filepath.Join(b.TempDir(), "big.log")
	f, err := os.Create(name)
	if err != nil {
		b.Fatal(err)
	}
	w := bufio.NewWriterSize(f, 1<<20)
	for i := 0; i*100 < size; i++ {
		line := fmt.Sprintf("2026-11-20T12:00:00.%06dZ INFO worker-%d handled request %08d in %d ms", i%1e6, i%8, i, i%977)
		if i == size/200 {
			line += " needleword"
		}
		fmt.Fprintf(w, "%s%s\n", line, strings.Repeat(".", 99-min(len(line), 99)))
	}
	if err := w.Flush(); err != nil {
		b.Fatal(err)
	}
	if err := f.Close(); err != nil {
		b.Fatal(err)
	}
	return name
}

func benchLine(b *testing.B, size int, command string) {
	name := bigFile(b, size)
	s := newService(b, Config{Roots: []string{filepath.Dir(name)}, Limits: Limits{Timeout: -1, MaxRead: -1, MaxLines: -1}})
	p, err := Parse(strings.ReplaceAll(command, "@", name))
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Run(context.Background(), p, Sink{Out: io.Discard, Err: func(line string) { b.Error(line) }}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCat(b *testing.B)          { benchLine(b, 100<<20, "cat @") }
func BenchmarkGrepRareWord(b *testing.B) { benchLine(b, 100<<20, "grep needleword @") }
func BenchmarkGrepFold(b *testing.B)     { benchLine(b, 100<<20, "grep -i NEEDLEWORD @") }
func BenchmarkGrepRegexp(b *testing.B) {
	benchLine(b, 100<<20, "grep -E 'request 0*7[0-9]* in 5 ms' @")
}
func BenchmarkGrepCommon(b *testing.B) { benchLine(b, 100<<20, "grep INFO @") }
func BenchmarkTail100(b *testing.B)    { benchLine(b, 100<<20, "tail -n 100 @") }
func BenchmarkSort(b *testing.B)       { benchLine(b, 10<<20, "sort -k 6 @") }

// BenchmarkReadFile is the floor: the same file read and its lines counted.
func BenchmarkReadFile(b *testing.B) {
	const size = 100 << 20
	name := bigFile(b, size)
	buf := make([]byte, blockSize)
	b.SetBytes(size)
	for b.Loop() {
		f, err := os.Open(name)
		if err != nil {
			b.Fatal(err)
		}
		lines := 0
		for {
			n, err := f.Read(buf)
			lines += bytes.Count(buf[:n], []byte{'\n'})
			if err != nil {
				break
			}
		}
		if err := f.Close(); err != nil || lines == 0 {
			b.Fatal(lines, err)
		}
	}
}

// BenchmarkFrames measures the socket side: blocks of lines as messages of the old form and of the subprotocol.
func BenchmarkFrames(b *testing.B) {
	block := bytes.Repeat([]byte(strings.Repeat("x", 99)+"\n"), blockSize/100)
	for _, framed := range []bool{false, true} {
		b.Run(fmt.Sprintf("framed=%v", framed), func(b *testing.B) {
			var buf []byte
			b.SetBytes(int64(len(block)))
			b.ReportAllocs()
			for b.Loop() {
				for p := block; len(p) > 0; {
					buf = buf[:0]
					n := 0
					if framed {
						n = wholeLines(p, maxFrame)
						buf = appendFrame(buf, 2, p[:n])
					} else {
						for n < len(p) && len(buf) < maxFrame {
							end := lineEnd(p, n)
							buf = appendFrame(buf, 1, textLine(p[n:end]))
							n = end
						}
					}
					p = p[n:]
				}
			}
		})
	}
}
