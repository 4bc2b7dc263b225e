// Package cli is the command line and the composition root: the only package that names an engine, sees both agent and
// server, or reads flags and environment. [Main] runs one command and blocks until it is done or ctx ends; the
// long-running roles (agent, server, dev) then drain before it returns. Everything a command starts has ended when Main
// returns. The wiring of a role is local variables in its file (agent.go, server.go, dev.go); there is no registry.
//
// Nothing of this program's other packages may import it.
package cli
