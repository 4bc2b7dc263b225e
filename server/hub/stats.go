package hub

// Stats are counters since the start of the process, and gauges.
type Stats struct {
	Sessions    int   // agents connected here
	Pending     int   // callers that wait for a final reply
	Calls       int64 // events taken
	Replies     int64 // final replies handed to callers
	Duplicates  int64 // further final replies
	Late        int64 // final replies after the deadline, or to a caller that is gone
	Timeouts    int64
	Redelivered int64 // events pushed again after a reconnect
	SlowClosed  int64 // sockets closed because they did not drain
	StaleClosed int64 // sockets closed because they went silent
	Refused     int64 // connections refused because the agent is connected already
	Quarantined int64 // reports refused because the host is another agent's
	Malformed   int64 // frames that were no proper reply
}

// Stats returns the present numbers.
func (h *Hub) Stats() Stats {
	return Stats{
		Sessions: len(h.wheel.all()), Pending: int(h.waiting.Load()), Calls: h.calls.Load(), Replies: h.replies.Load(),
		Duplicates: h.duplicates.Load(), Late: h.late.Load(), Timeouts: h.timeouts.Load(), Redelivered: h.redelivered.Load(),
		SlowClosed: h.slowClosed.Load(), StaleClosed: h.staleClosed.Load(), Refused: h.refused.Load(),
		Quarantined: h.quarantined.Load(), Malformed: h.malformed.Load(),
	}
}
