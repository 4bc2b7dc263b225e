// Package ui prints what a command found: aligned tables for people, JSON and YAML for programs, and one line of
// progress on a terminal. Nothing in it starts a goroutine but [Progress], which ends with Stop; a [Printer] is used by
// one goroutine at a time. Text that came from a host or a server is stripped of control characters before it reaches
// a terminal.
package ui
