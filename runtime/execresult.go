package runtime

import (
	"bytes"
	"io"
	"unicode/utf8"
)

// An ExecResult is how a process ended. After an error ExitCode is -1 and the streams may be nil.
type ExecResult struct {
	Cmd      string // the words, joined by spaces
	ExitCode int
	Stdout   *bytes.Buffer
	Stderr   *bytes.Buffer
	// StdoutTruncated and StderrTruncated tell that more was written than was kept.
	StdoutTruncated, StderrTruncated bool
}

// SampleOutput returns the first [DefaultSampleOutputLength] bytes of each stream.
func (r ExecResult) SampleOutput() (stdout, stderr string) {
	return r.SampleOutputLength(DefaultSampleOutputLength)
}

// SampleOutputLength returns at most n bytes of each stream, cut between characters. A missing stream is "".
func (r ExecResult) SampleOutputLength(n int) (stdout, stderr string) {
	return sample(r.Stdout, n), sample(r.Stderr, n)
}

func sample(b *bytes.Buffer, n int) string {
	if b == nil || n <= 0 {
		return ""
	}
	text := b.Bytes()
	if len(text) <= n {
		return string(text)
	}
	cut := n
	for cut > 0 && cut > n-utf8.UTFMax && !utf8.RuneStart(text[cut]) {
		cut--
	}
	if _, size := utf8.DecodeRune(text[cut:]); cut+size <= n {
		cut = n // no character crosses n: the bytes there are no UTF-8
	}
	return string(text[:cut])
}

// An ExecAsyncResult is a process that runs. Stdout and Stderr are read by the caller until io.EOF, or closed; a
// stream that nobody reads stops the process, not the agent. Result gets exactly one value, when the process has
// ended, whether or not anybody reads it, and is closed then. Ending the ctx of ExecAsync ends the process.
type ExecAsyncResult struct {
	Cmd    string
	Result <-chan ExecAsyncResultCode // capacity 1
	Stdout io.ReadCloser
	Stderr io.ReadCloser
}

// An ExecAsyncResultCode is the end of an asynchronous process. Code is -1 if there is an error instead.
type ExecAsyncResultCode struct {
	Code int
	Err  error
}
