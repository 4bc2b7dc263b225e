// Package fake is the container engine interface of package runtime in memory: the same semantics as runtime/docker
// without a daemon, for tests, demonstrations and benchmarks. Its JSON has the shape of dockerd's.
//
// The processes of containers, and those of Exec, are Go functions ([Program]). A small shell and some commands are
// built in: sh -c, cat, echo, sleep, head and the like. A container's main command that is none of them, like nginx,
// runs until it is signalled; in Exec an unknown command ends with 127, as it does in a shell.
//
// An engine can be told to fail: [Engine.Down], [Engine.Hang], [Engine.Fail], [Engine.Delay]. All methods are safe for
// concurrent use. [Engine.Close] ends all processes and waits for them. Nothing restarts: restart policies are kept but
// not acted on.
package fake
