// Package cgroup tells what the control groups of a process limit and count: processor, memory, processes, how often it
// was held back, and how long it waited. It reads versions 1 and 2 from an fs.FS, writes nothing, and keeps no state.
package cgroup
