// Package compute carries out what people want done with containers and images: it turns a wish ("start this") into
// the events that an agent understands, follows their progress, and folds their replies into the records.
//
// Order: one operation at a time per container. A remove supersedes any other operation, a stop supersedes a start;
// everything else is refused with a conflict while an operation runs. The events of a container reach its agent in the
// order in which they were decided.
//
// Durability: an operation is written into its record before its first event leaves and after each step, with the id
// of the event in flight. When the server starts, what was in progress is taken up at that step under that id, so that
// an agent which did the work already answers from its journal. Where several replicas share the records, an operation
// whose replica died is taken over by another when its lease ends.
//
// Blocking: the methods that change containers return when the wish is recorded; [Engine.Inspect] and [Engine.Ask]
// wait for the agent. Ownership: every goroutine ends before [Engine.Run] returns.
package compute
