// Package web holds the files of the console: one page that lists hosts and containers live, without frameworks and
// without anything from another server. It talks to the REST API alone, with a key that the browser forgets when the
// tab is closed.
package web

import (
	"embed"
	"io/fs"
)

//go:embed static
var static embed.FS

// Files returns the console's files, index.html at the root.
func Files() fs.FS {
	sub, err := fs.Sub(static, "static")
	if err != nil {
		panic(err) // the folder is part of the program
	}
	return sub
}
