// Package handlers turns the events of a Rancher 1.6 or Drover server into calls of a container engine: instances,
// images, volumes and configuration. [Register] wires all of them; ping is a package of its own.
//
// A handler decodes the event's data tolerantly, names the field that is wrong, is idempotent, returns what the
// reply's data shall be, and never sends. Handlers are safe for concurrent use. What they share is little: pulls that
// several events wait for, the turn of the configuration script, and the engine's facts for some minutes. All of them
// end when their ctx does, and leave no goroutine behind. The engine's own JSON is relayed undecoded.
//
// [ContainerEvents] tells the server what happens to the engine's containers without having been asked.
package handlers
