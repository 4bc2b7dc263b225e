// Package cast records terminal sessions as asciicast v2 and plays them. A [Recorder] is safe for concurrent use and
// starts no goroutine; [Play] blocks until the recording or its ctx ends, and its goroutines end with it. A recording
// may come from anywhere: what is no recording is told as such, lines are bounded, times are made to grow.
package cast
