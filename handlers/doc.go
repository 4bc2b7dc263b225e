// Package handlers turns the events of a Rancher 1.6 or Drover server into calls of a container engine: instances,
// images, volumes and configuration. [Register] wires all of them; ping is a package of its own.
//
// A handler decodes the event's data tolerantly, names the field that is wrong, is idempotent, returns what the
// reply's data shall be, and never sends. Handlers are safe for concurrent use and keep no state of their own but
// pulls that several events share. All of them end when their ctx does. The engine's own JSON is relayed undecoded.
//
// [ContainerEvents] tells the server what happens to the engine's containers without having been asked.
package handlers
