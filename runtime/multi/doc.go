// Package multi makes one engine of the several that a node may have. A container is found at the engine that knows it;
// lists and notices are those of all. [New] does no I/O, and nothing runs in the background: an Engine is safe for
// concurrent use and owns its engines, which Close closes.
package multi
