package handlers

import (
	"fmt"
	"strings"
	"time"

	"github.com/droverhq/drover/events"
	"github.com/droverhq/drover/runtime"
)

// reportEvery is the shortest time between two reports of one pull. Each keeps the server waiting for more.
const reportEvery = 250 * time.Millisecond

// mountedFrom begins the status of a layer that a registry has already, in another repository.
const mountedFrom = "Mounted from "

// A reporter makes one line and a percentage of the many steps of a pull or a build. It is not safe for concurrent use.
type reporter struct {
	what     string
	p        events.Progress
	layers   map[string]layer
	percent  int
	lastText string
	last     time.Time
	detailed bool     // tell each layer too
	order    []string // of the layers, with detailed
}

type layer struct {
	current, total int64
	done           bool
	status         string
}

func newReporter(what string, p events.Progress) *reporter {
	return &reporter{what: what, p: p, layers: make(map[string]layer)}
}

// newDetailed is newReporter for a server that takes data with progress.
func newDetailed(what string, p events.Progress) *reporter {
	r := newReporter(what, p)
	r.detailed = true
	return r
}

// step takes one step. It does not block.
func (r *reporter) step(s runtime.PullProgress) {
	if r.p == nil {
		return
	}
	if s.Layer != "" {
		r.layer(s)
	}
	now := time.Now()
	if now.Sub(r.last) < reportEvery {
		return
	}
	text := r.text(s)
	// The same words again are still a sign of life, but not at every chunk.
	if text == r.lastText && now.Sub(r.last) < 20*reportEvery && !r.detailed {
		return
	}
	r.last, r.lastText = now, text
	if d, ok := r.p.(events.DataProgress); ok && r.detailed {
		d.ReportData(text, r.percent, r.detail(s))
		return
	}
	r.p.Report(text, r.percent)
}

func (r *reporter) layer(s runtime.PullProgress) {
	switch s.Status {
	case "Pulling fs layer", "Waiting", "Downloading", "Verifying Checksum", "Download complete", "Extracting",
		"Pull complete", "Already exists", "Preparing", "Pushing", "Pushed", "Layer already exists":
	default:
		if !strings.HasPrefix(s.Status, mountedFrom) {
			return // not of a layer: "Pulling from library/x" has the tag where the layer's id stands
		}
	}
	l, known := r.layers[s.Layer]
	if !known {
		r.order = append(r.order, s.Layer)
	}
	l.status = s.Status
	switch s.Status {
	case "Downloading", "Pushing":
		l.current = s.Current
		if s.Total > 0 {
			l.total = s.Total
		}
		if l.total > 0 {
			l.current = min(l.current, l.total) // what is sent has tar's headers too
		}
	case "Already exists", "Layer already exists":
		l.done, l.current, l.total = true, 0, 0
	case "Download complete", "Verifying Checksum", "Extracting", "Pull complete", "Pushed":
		l.current = l.total
		l.done = l.done || s.Status == "Pull complete" || s.Status == "Pushed"
	default:
		l.done = l.done || strings.HasPrefix(s.Status, mountedFrom)
	}
	r.layers[s.Layer] = l
	current, total, unknown := r.sum()
	if total > 0 && !unknown {
		// Never 100 before the end, and never back: layers that become known later would make it jump.
		r.percent = max(r.percent, min(99, int(current*100/total)))
	}
}

// sum adds the layers up; unknown says that the size of one is not known yet.
func (r *reporter) sum() (current, total int64, unknown bool) {
	for _, l := range r.layers {
		current += l.current
		total += l.total
		unknown = unknown || l.total == 0 && !l.done
	}
	return current, total, unknown
}

func (r *reporter) text(s runtime.PullProgress) string {
	if len(r.layers) == 0 {
		return r.what + ": " + oneLine(s.Status)
	}
	done := 0
	for _, l := range r.layers {
		if l.done {
			done++
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d of %d layers", r.what, done, len(r.layers))
	if current, total, _ := r.sum(); total > 0 {
		fmt.Fprintf(&b, ", %s of %s", megabytes(current), megabytes(total))
	}
	return b.String()
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }

// layerDetail is one layer in the data of a progress reply.
type layerDetail struct {
	Layer   string `json:"layer"`
	Status  string `json:"status"`
	Current int64  `json:"current"` // bytes
	Total   int64  `json:"total"`   // bytes, 0 if unknown
}

// detail is the data of a progress reply: the step as it came, and how each layer stands, in the engine's order.
func (r *reporter) detail(s runtime.PullProgress) any {
	layers := make([]layerDetail, 0, len(r.order))
	for _, id := range r.order {
		l := r.layers[id]
		layers = append(layers, layerDetail{Layer: id, Status: l.status, Current: l.current, Total: l.total})
	}
	return struct {
		layerDetail
		Layers []layerDetail `json:"layers"`
	}{layerDetail{Layer: s.Layer, Status: oneLine(s.Status), Current: s.Current, Total: s.Total}, layers}
}
