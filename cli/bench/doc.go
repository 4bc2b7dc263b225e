// Package bench measures Drover against the floor of the same machine in the same run: raw calls of dockerd's API, a
// plain file read, a bare TCP connection. Sides are measured in turn (A B A B ...), every table carries an A/A pair
// that shows how far two runs of the same thing differ here, and what is compared is the ratio of medians. A target is
// missed only by more than that error, so a busy machine makes a figure wide, not wrong.
//
// A run blocks until it is done or ctx ends, owns the processes, containers and sockets that it makes, and removes
// them. Nothing here is safe for concurrent use; rounds run one after another.
package bench
