// Package cri drives any Kubernetes runtime that speaks CRI v1: containerd, CRI-O. It implements the interfaces of
// package runtime, and the engine of the pod model.
//
// A container that is made through it gets a sandbox of its own, a pod of one, which goes when the container is
// removed; a kubelet on the same node takes it for an orphan and ends it. What a CRI runtime cannot do is [runtime.ErrUnsupported] with a sentence. Unary calls are bounded even where
// ctx is not. Exec and attach go through the runtime's own streaming server; logs are read from the files that the
// runtime writes, so this process must see them. All methods are safe for concurrent use; [Engine.Close] ends the
// connection and waits for nothing else, since every goroutine belongs to a call.
package cri
