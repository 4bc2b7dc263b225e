// Package logs is the log service of a node: the commands that people type (cat, tail, grep, sort ...) carried out on
// the node's log files without a shell and without a process.
//
// A command line is parsed into a [Pipeline] of allowed commands, refused with reason and position otherwise, and run
// stage by stage in this process. An awk program is anybody's code, and runs in a child of ours with limits that the
// kernel keeps and with nothing open but pipes ([AwkWorker], ADR 0013). Files are reached through a [Jail] alone. Stages of a pipeline run in parallel and
// their output keeps its order; a slow reader of the output slows the command and nothing else. A command's files,
// goroutines and spill files are owned by the call that runs it and are gone when it returns. Memory is bounded by the
// [Limits], whatever the size of the files.
package logs
