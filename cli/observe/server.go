package observe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/pprof"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/droverhq/drover/events"
	"github.com/droverhq/drover/handlers"
	"github.com/droverhq/drover/runtime"
)

// Sources are what the answers are made of. They are called for each request, must not block, and may be nil where the
// agent has no such thing.
type Sources struct {
	// Channel is the control channel; nil before the agent is registered.
	Channel func() events.Status
	// Engine is the container cache, which knows whether the engine answers.
	Engine func() runtime.CacheStatus
	// Posts counts container events on their way to the server.
	Posts func() handlers.ContainerEventsStats
	// Tunnel is the way in for streams; nil where there is none.
	Tunnel func() Tunnel
	// Pods is the pod map; nil where there is none.
	Pods func() Pods
	// Standalone says that there is no server to be connected to.
	Standalone bool
	// Phase says what the agent does while Channel is nil: "registering".
	Phase func() string
}

// A Tunnel is the state of the tunnel to the server.
type Tunnel struct {
	Open    bool
	Dials   uint64
	Streams int
	RTT     time.Duration // 0 before it is known
}

// Pods is the state of the pod map.
type Pods struct {
	Ready      bool              `json:"ready"`
	Pods       int               `json:"pods"`
	Containers int               `json:"containers"`
	Refresh    time.Duration     `json:"-"`                // how long the last one took
	Lists      uint64            `json:"-"`                // how often everything was listed anew
	Errors     map[string]string `json:"errors,omitempty"` // of engines and sources
}

// Config configures a [Server].
type Config struct {
	Version, Commit, GoVersion string
	Sources                    func() Sources
	Profile                    bool // serve /debug/pprof
}

// A Server answers for one agent.
type Server struct {
	cfg      Config
	registry *prometheus.Registry
	events   *prometheus.CounterVec
	duration *prometheus.HistogramVec
	streams  *prometheus.CounterVec
	lasting  *prometheus.HistogramVec
	metrics  func() http.Handler // made at the first call
}

// New returns a server that waits for Run.
func New(cfg Config) *Server {
	s := &Server{
		cfg: cfg, registry: prometheus.NewRegistry(),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "drover_events_total", Help: "Events served, by name and result (ok or the error's code).",
		}, []string{"name", "result"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "drover_event_duration_seconds", Help: "How long handlers took.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300},
		}, []string{"name"}),
		streams: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "drover_streams_total", Help: "Streams that ended, by verb and result (ok or the error's code).",
		}, []string{"verb", "result"}),
		lasting: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "drover_stream_duration_seconds", Help: "How long streams lasted.",
			Buckets: []float64{.01, .05, .1, .5, 1, 5, 30, 300, 3600},
		}, []string{"verb"}),
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "drover_build_info", Help: "Always 1; the labels say what runs.",
		ConstLabels: prometheus.Labels{"version": cfg.Version, "commit": cfg.Commit, "go": cfg.GoVersion},
	})
	info.Set(1)
	s.registry.MustRegister(s.events, s.duration, s.streams, s.lasting, info, &channelMetrics{sources: cfg.Sources})
	s.metrics = sync.OnceValue(func() http.Handler {
		// An agent shall subscribe before it describes a hundred figures of its Go runtime.
		s.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
		return promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{})
	})
	return s
}

// Observe counts one event served. It is what [events.RouterConfig] asks for.
func (s *Server) Observe(name, result string, took time.Duration) {
	s.events.WithLabelValues(name, result).Inc()
	s.duration.WithLabelValues(name).Observe(took.Seconds())
}

// ObserveStream counts one stream that ended. It is what the Observe of package service asks for.
func (s *Server) ObserveStream(verb, result string, took time.Duration) {
	s.streams.WithLabelValues(verb, result).Inc()
	s.lasting.WithLabelValues(verb).Observe(took.Seconds())
}

// Handler serves the four paths.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	live := func(w http.ResponseWriter, r *http.Request) { s.answer(w, r, true) }
	mux.HandleFunc("GET /healthz", live)
	mux.HandleFunc("GET /livez", live)
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) { s.answer(w, r, false) })
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) { s.metrics().ServeHTTP(w, r) })
	if s.cfg.Profile {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	return mux
}

// Run serves on l until ctx ends. It closes l.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	srv := &http.Server{
		Handler: s.Handler(), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
	}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	select {
	case err := <-ended:
		return fmt.Errorf("health listener: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	err := srv.Shutdown(grace)
	if err != nil {
		err = errors.Join(err, srv.Close())
	}
	<-ended
	return err
}

// Health is the verbose answer.
type Health struct {
	Ready   bool    `json:"ready"`
	Version string  `json:"version"`
	Server  Channel `json:"server"`
	Engine  Engine  `json:"engine"`
	Pods    *Pods   `json:"pods,omitempty"`
}

// A Channel is the state of the connection to the server.
type Channel struct {
	State        string    `json:"state"`
	Since        time.Time `json:"since,omitzero"`
	LastFrameAge float64   `json:"lastFrameAgeSeconds"`
	Version      string    `json:"version,omitempty"`
	Error        string    `json:"error,omitempty"`
}

// An Engine is the state of the container engine.
type Engine struct {
	Answers    bool   `json:"answers"`
	Containers int    `json:"containers"`
	Error      string `json:"error,omitempty"`
}

// Health looks at the sources.
func (s *Server) Health() Health {
	src := s.cfg.Sources()
	h := Health{Version: s.cfg.Version, Server: Channel{State: "starting"}}
	if src.Phase != nil {
		h.Server.State = src.Phase()
	}
	if src.Channel != nil {
		c := src.Channel()
		h.Server = Channel{State: string(c.State), Since: c.Since, Version: c.ServerVersion}
		if !c.LastFrame.IsZero() {
			h.Server.LastFrameAge = time.Since(c.LastFrame).Seconds()
		}
		if c.State != events.StateConnected {
			h.Server.Error = c.LastError
		}
	}
	if src.Engine != nil {
		e := src.Engine()
		h.Engine = Engine{Answers: e.Ready && e.Healthy, Containers: e.Containers, Error: e.LastError}
	}
	if src.Pods != nil {
		p := src.Pods()
		h.Pods = &p
	}
	h.Ready = h.Server.State == string(events.StateConnected) && h.Engine.Answers
	if src.Standalone {
		h.Server = Channel{State: "none"}
		h.Engine = Engine{Answers: h.Pods != nil && h.Pods.Ready}
		if h.Pods != nil {
			h.Engine.Containers = h.Pods.Containers
			for _, who := range slices.Sorted(maps.Keys(h.Pods.Errors)) {
				if !h.Engine.Answers && h.Engine.Error == "" {
					h.Engine.Error = who + ": " + h.Pods.Errors[who]
				}
			}
		}
		h.Ready = h.Engine.Answers
	}
	return h
}

// String words h in one line.
func (h Health) String() string {
	text := "server: " + h.Server.State
	if h.Server.Error != "" {
		text += " (" + h.Server.Error + ")"
	}
	text += "; engine: "
	switch {
	case h.Engine.Answers:
		text += fmt.Sprintf("answers, %d containers", h.Engine.Containers)
	case h.Engine.Error != "":
		text += h.Engine.Error
	default:
		text += "not asked yet"
	}
	return strings.ReplaceAll(text, "\n", " ")
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request, live bool) {
	h := s.Health()
	status := http.StatusOK
	if !live && !h.Ready {
		status = http.StatusServiceUnavailable
	}
	w.Header().Set("Cache-Control", "no-store")
	if r.URL.Query().Has("verbose") {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(h) // the client went away
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	word := "ok"
	if !live && !h.Ready {
		word = "not ready"
	}
	_, _ = fmt.Fprintf(w, "%s: %s\n", word, h) // the client went away
}
