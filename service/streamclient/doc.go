// Package streamclient is the other end of package service: it reaches the streams of one host through any of its doors,
// which differ in their base URL and in what they ask for as credentials.
//
// A [Client] runs processes, attaches to containers, and reads logs, figures, processes, events, files and ports. What
// it promises:
//
//   - Every call listens to its context, and returns the cause of its end. A process whose [Client.Exec] is cancelled is
//     ended by its host, unless it was asked to be kept.
//   - The end of a process is nil for exit code 0, *[runtime.ExitError] for another one. What the host or a server on the
//     way refuses is an *[Error] with its sentence and status, which wraps the class: errors.Is(err, runtime.ErrNotFound).
//     Everything else is a failure on the way.
//   - Writers are called from the calling goroutine, one at a time, and stop the stream while they block. Standard input
//     is read by a goroutine; a Read that is under way when the call returns is left behind, and what it still reads is
//     lost. Nothing else outlives its call but what a call returns, which the caller closes.
//   - No secret is put into a URL.
//
// A Client is safe for concurrent use.
package streamclient
