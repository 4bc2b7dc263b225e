// Package node serves the doors of a Kubernetes node: exec, attach and port-forward by pod name as a kubelet does and by
// container id as the node agents before Drover did, the pod map, the facts of containers, and what pods leave to be run
// before they end.
//
// A [Handler] is an http.Handler. Who may do what is in the token of a request, package token: which verbs, in which pod
// and container, which commands, as which users. A request that is refused is logged with who asked and why; one that is
// allowed is logged with who and what, without arguments. The streams themselves are those of package service: the doors
// here find the container, decide, and pass the request on.
//
// [New] does no I/O and starts nothing. Requests end with their context; [Handler.Close] waits for those under way.
package node
