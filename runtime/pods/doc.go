// Package pods knows the pods of this node: a [runtime.MetaStore] over one or more container engines, and whatever else
// tells of pods: the kubelet, the API server, a resource manager.
//
// [New] does no I/O. [Store.Run] follows everything until its ctx ends; [Store.Start] and [Store.Stop] do the same for
// callers without a goroutine of their own. Reads never block and never wait for a refresh: they see the last complete
// state, and what they return never changes. A change of a container is in the map as soon as the engine tells of it
// and it was inspected; a list of all, every Config.Ticker, is the net under that. An engine or a source that fails
// keeps its last word: nothing vanishes because somebody did not answer.
//
// A pod is its namespace, name and uid. Which of its containers are init or ephemeral ones only the kubelet and the API
// server tell; with labels alone, all are taken for ordinary ones. A pod that has ended, by its phase or because nothing
// of it runs and nobody but the engine knows it, is not in the map.
//
// Listeners are called by one goroutine, one after another, outside of every lock; changes that come meanwhile are told
// in one later call.
package pods
