package events

import "github.com/droverhq/drover/events/wire"

// DataProgress is the [Progress] of a handler that has more to report than a line. What a [Router] hands to handlers is
// one; data goes into the progress reply's data as [wire.NewReply] takes it, and what does not fit is left out.
// Original Rancher servers expect none, so that the handlers of their events use Report alone.
type DataProgress interface {
	Progress
	// ReportData is Report with data, which is read before it returns. It never blocks either, and is coalesced in the
	// same way.
	ReportData(message string, percent int, data any)
}

// ReportData extends the deadline as Report does.
func (e *extending) ReportData(message string, percent int, data any) {
	e.m.extend()
	if d, ok := e.p.(DataProgress); ok {
		d.ReportData(message, percent, data)
		return
	}
	e.p.Report(message, percent)
}

// ReportData queues a report with data.
func (p *progress) ReportData(message string, percent int, data any) {
	reply := wire.NewProgressReply(p.ev, message, percent)
	if full, err := wire.NewReply(p.ev, data); err == nil {
		reply.Data = full.Data
	}
	p.queue(reply)
}
