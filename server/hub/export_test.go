package hub

import (
	"context"
	"testing"
	"time"
)

// Ask pings an agent at once, for everything.
func (h *Hub) Ask(_ context.Context, agentID string) {
	if s := h.known(agentID).session(); s != nil {
		s.ping(time.Now(), &pingOptions{resources: true, instances: true, stats: true})
	}
}

// Beat pings an agent at once, as is due.
func (h *Hub) Beat(agentID string) {
	if s := h.known(agentID).session(); s != nil {
		s.ping(time.Now(), nil)
	}
}

// Resting returns how many sessions wait for a sign of life, with the small stack.
func (h *Hub) Resting() int { return int(h.resting.Load()) }

// BenchReport decodes a report.
func BenchReport(b *testing.B, data []byte) {
	b.ReportAllocs()
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if s, err := readReport(data); err != nil || !s.listed {
			b.Fatal(err)
		}
	}
}
