package observe

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/droverhq/drover/events"
)

// channelMetrics turns the sources' snapshots into metrics when they are asked for, so that nothing is counted twice.
type channelMetrics struct{ sources func() Sources }

var _ prometheus.Collector = (*channelMetrics)(nil)

// Describe sends nothing: the set of metrics depends on what the agent has.
func (*channelMetrics) Describe(chan<- *prometheus.Desc) {}

// Collect reads each source once.
func (m *channelMetrics) Collect(out chan<- prometheus.Metric) {
	src := m.sources()
	emit := func(kind prometheus.ValueType, name, help string, value float64, labels ...string) {
		var keys, values []string
		for i := 0; i < len(labels); i += 2 {
			keys, values = append(keys, labels[i]), append(values, labels[i+1])
		}
		out <- prometheus.MustNewConstMetric(prometheus.NewDesc("drover_"+name, help, keys, nil), kind, value, values...)
	}
	gauge := func(name, help string, value float64) { emit(prometheus.GaugeValue, name, help, value) }
	counter := func(name, help string, value uint64, labels ...string) {
		emit(prometheus.CounterValue, name, help, float64(value), labels...)
	}
	var dropped uint64
	if src.Channel != nil {
		c := src.Channel()
		s := c.Stats
		gauge("connected", "1 while the server is connected.", boolean(c.State == events.StateConnected))
		if !c.LastFrame.IsZero() {
			gauge("last_frame_age_seconds", "Time since the last sign of life from the server.", time.Since(c.LastFrame).Seconds())
		}
		gauge("clock_skew_seconds", "The server's clock minus this one.", c.ClockSkew.Seconds())
		gauge("round_trip_seconds", "Of the last keep-alive.", c.RTT.Seconds())
		gauge("queue_depth", "Events that wait.", float64(s.Queued))
		gauge("queue_bytes", "Size of the events that wait.", float64(s.QueuedBytes))
		gauge("events_running", "Events in a handler.", float64(s.Running))
		gauge("replies_unsent", "Final replies that the server did not take yet.", float64(s.Unsent))
		counter("connects_total", "Connections to the server.", s.Connects)
		const again = "Attempts to connect again, by why the last one ended."
		counter("reconnects_total", again, max(s.Connects, 1)-1, "reason", "lost")
		counter("reconnects_total", again, s.ConnectFailures, "reason", "failed")
		counter("events_received_total", "Events read, pings too.", s.Events)
		counter("events_malformed_total", "Frames that could not be read.", s.Malformed)
		counter("events_busy_total", "Events refused because the queue was full.", s.Busy)
		counter("events_joined_total", "Events whose id was under way already.", s.Joined)
		counter("events_repeated_total", "Events answered from the journal.", s.Repeated)
		counter("replies_total", "Final replies made.", s.Replies)
		counter("replies_resent_total", "Final replies sent again.", s.Resent)
		counter("replies_taken_total", "Final replies that the server took.", s.Taken)
		counter("publish_failures_total", "Attempts to hand a reply over that failed.", s.PublishFailures)
		counter("journal_failures_total", "Writes of the journal that failed.", s.JournalFailures)
		dropped += s.Refused + s.Expired
	}
	if src.Engine != nil {
		e := src.Engine()
		gauge("engine_up", "1 while the container engine answers.", boolean(e.Ready && e.Healthy))
		gauge("containers", "Containers of the host.", float64(e.Containers))
		counter("engine_lists_total", "List calls to the engine.", e.Lists)
		counter("engine_notices_total", "Events of the engine.", e.Notices)
		counter("engine_gaps_total", "Event streams of the engine that broke.", e.Gaps)
	}
	if src.Posts != nil {
		p := src.Posts()
		gauge("container_events_queued", "Container events on their way to the server.", float64(p.Queued))
		counter("container_events_posted_total", "Container events that the server took.", p.Posted)
		counter("container_events_retried_total", "Attempts to post a container event that failed.", p.Retried)
		dropped += p.Dropped
	}
	if src.Tunnel != nil {
		t := src.Tunnel()
		gauge("tunnel_open", "1 while the tunnel to the server is open.", boolean(t.Open))
		gauge("tunnel_streams", "Streams in the tunnel.", float64(t.Streams))
		gauge("tunnel_round_trip_seconds", "Of the tunnel's last keep-alive.", t.RTT.Seconds())
		counter("tunnel_dials_total", "Attempts to open the tunnel.", t.Dials)
	}
	if src.Pods != nil {
		p := src.Pods()
		gauge("pods", "Pods in the pod map.", float64(p.Pods))
		gauge("pod_containers", "Containers in the pod map.", float64(p.Containers))
		gauge("pod_map_ready", "1 once every engine and source has answered.", boolean(p.Ready))
		gauge("pod_map_errors", "Engines and sources that do not answer.", float64(len(p.Errors)))
		counter("pod_map_lists_total", "How often everything was listed anew.", p.Lists)
		gauge("pod_map_refresh_seconds", "How long the last refresh took.", p.Refresh.Seconds())
	}
	counter("dropped_total", "Replies and container events that were lost. It stays 0.", dropped)
}

func boolean(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
