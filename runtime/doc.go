// Package runtime is the vocabulary of container engines: containers, images, volumes, processes, logs and events, as
// small interfaces, value types and a handful of sentinel errors. It knows no engine; runtime/docker, runtime/cri and
// runtime/fake implement it, and runtime/runtimetest states the behaviour that all of them share.
//
// Every method takes a ctx, returns when it ends, and is safe for concurrent use. Errors wrap one of the sentinels of
// errors.go, so callers decide with [errors.Is]. Files import the standard library's runtime as goruntime.
package runtime
