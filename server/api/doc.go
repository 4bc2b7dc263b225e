// Package api is the HTTP face of a control server: Rancher 1.6's REST conventions under /v1 and /v2-beta, the
// registration scripts, the event sockets, health, and the static console.
//
// [Handler] is one http.Handler and keeps no state of its own but counters of failed logins: records live in the
// store, agent sessions in the hub, and work on containers in package compute. Every request is authenticated except
// scripts, health and the console's files. Errors have Rancher's JSON form, and what a client sends never ends up in a
// log but for method, masked path and size.
//
// Paths are never answered by a redirect: repeated slashes count as one, as original agents send them.
package api
