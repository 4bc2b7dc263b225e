// Package terminal is the user's end of a stream. [Take] puts a terminal into raw mode and tells its sizes until Release,
// which puts everything back, and which every way out of a command has to pass; [Input] reads standard input and can be
// told to stop without losing a byte; [Detach] watches for the keys that leave a stream. Each type has one owner, who
// closes it; no goroutine outlives that.
package terminal
