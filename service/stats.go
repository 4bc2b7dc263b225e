package service

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/droverhq/drover/runtime"
)

// A Sample is the use of the host or of a container. Counters grow from its start; rates are over the time since the
// sample before in the same stream, and missing in the first.
type Sample struct {
	Type       string    `json:"type"` // host, container
	ID         string    `json:"id,omitempty"`
	Name       string    `json:"name,omitempty"`
	Time       time.Time `json:"time"`
	CPU        CPUSample `json:"cpu"`
	Memory     Memory    `json:"memory"`
	Pids       uint64    `json:"pids,omitempty"`
	ReadBytes  uint64    `json:"readBytes"`
	WriteBytes uint64    `json:"writeBytes"`
	Networks   []Network `json:"networks,omitempty"`
	Error      string    `json:"error,omitempty"` // why there are no figures
}

// A CPUSample is in nanoseconds.
type CPUSample struct {
	Total   uint64   `json:"total"`
	User    uint64   `json:"user"`
	System  uint64   `json:"system"`
	PerCPU  []uint64 `json:"perCpu,omitempty"`
	Percent *float64 `json:"percent,omitempty"` // of one CPU: 200 is two CPUs
}

// Memory is in bytes.
type Memory struct {
	Usage uint64 `json:"usage"`
	Limit uint64 `json:"limit,omitempty"`
}

// A Network is one interface.
type Network struct {
	Name      string `json:"name"`
	RxBytes   uint64 `json:"rxBytes"`
	RxPackets uint64 `json:"rxPackets"`
	RxErrors  uint64 `json:"rxErrors"`
	RxDropped uint64 `json:"rxDropped"`
	TxBytes   uint64 `json:"txBytes"`
	TxPackets uint64 `json:"txPackets"`
	TxErrors  uint64 `json:"txErrors"`
	TxDropped uint64 `json:"txDropped"`
}

// serveStats writes one sample of the host and its running containers, or of one container; with stream, one after
// another, a JSON object a line.
func (s *Service) serveStats(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	stream := q.flag("stream", "follow")
	interval := q.duration("interval", time.Second, 100*time.Millisecond, time.Hour)
	if q.err != nil {
		return q.err
	}
	var one *runtime.ContainerStatus
	if r.PathValue("container") != "" {
		st, err := s.container(r)
		if err != nil {
			return err
		}
		one = &st
		if s.samples == nil {
			return unsupported("stats")
		}
	}
	action := Action{Verb: VerbStats}
	if one != nil {
		action.Container = *one
	}
	if err := s.allow(r, action); err != nil {
		return err
	}
	if !stream {
		return s.oneSample(w, r, one)
	}
	return s.sampleStream(w, r, one, interval)
}

func (s *Service) oneSample(w http.ResponseWriter, r *http.Request, one *runtime.ContainerStatus) error {
	if one != nil {
		sample, err := s.samples.take(r.Context(), one.ID, 0)
		if err != nil {
			return err
		}
		return writeJSON(w, sampleOf("container", one.Name, sample))
	}
	all, err := s.sampleAll(r.Context(), 0)
	if err != nil {
		return err
	}
	return writeJSON(w, map[string]any{"type": "collection", "data": all})
}

func (s *Service) sampleStream(w http.ResponseWriter, r *http.Request, one *runtime.ContainerStatus, interval time.Duration) error {
	ctx := r.Context()
	rc := http.NewResponseController(w)
	enc := json.NewEncoder(w)
	before := map[string]Sample{}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for begun := false; ; begun = true {
		var round []Sample
		var err error
		if one == nil {
			round, err = s.sampleAll(ctx, interval/2)
		} else {
			var st runtime.Stats
			st, err = s.samples.take(ctx, one.ID, interval/2)
			round = []Sample{sampleOf("container", one.Name, st)}
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && begun && (errors.Is(err, runtime.ErrNotFound) || errors.Is(err, runtime.ErrConflict)):
			return nil // the container has ended, and the stream with it
		case err != nil:
			return err
		}
		w.Header().Set("Content-Type", MediaLines)
		w.Header().Set("X-Accel-Buffering", "no")
		for _, sample := range round {
			if old, ok := before[sample.ID]; ok {
				sample.CPU.Percent = percent(old, sample)
			}
			before[sample.ID] = sample
			if err := enc.Encode(sample); err != nil {
				return err
			}
		}
		if err := rc.Flush(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// sampleAll samples the host and the running containers, several at a time. A container that cannot be sampled is listed
// with the reason, and holds up nobody else.
func (s *Service) sampleAll(ctx context.Context, age time.Duration) ([]Sample, error) {
	var all []Sample
	if s.cfg.HostStats != nil {
		host, err := s.cfg.HostStats(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, sampleOf("host", "", host))
	}
	if s.samples == nil {
		return all, nil
	}
	list, err := s.cfg.Engine.List(ctx, runtime.ListOptions{Running: true})
	if err != nil {
		return nil, err
	}
	containers := make([]Sample, len(list))
	var wg sync.WaitGroup
	slots := make(chan struct{}, 8)
	for i, c := range list {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			name := ""
			if len(c.Names) > 0 {
				name = c.Names[0]
			}
			st, err := s.samples.take(ctx, c.ID, age)
			containers[i] = sampleOf("container", name, st)
			if err != nil {
				containers[i] = Sample{Type: "container", ID: c.ID, Name: name, Time: time.Now(), Error: err.Error()}
			}
		})
	}
	wg.Wait()
	slices.SortFunc(containers, func(a, b Sample) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return append(all, containers...), nil
}

func sampleOf(kind, name string, st runtime.Stats) Sample {
	out := Sample{
		Type: kind, ID: st.ID, Name: name, Time: st.Time,
		CPU:    CPUSample{Total: st.CPUTotal, User: st.CPUUser, System: st.CPUSystem, PerCPU: st.PerCPU},
		Memory: Memory{Usage: st.Memory, Limit: st.MemoryLimit},
		Pids:   st.Pids, ReadBytes: st.ReadBytes, WriteBytes: st.WriteBytes,
	}
	for _, n := range st.Networks {
		out.Networks = append(out.Networks, Network(n))
	}
	return out
}

// percent is the use of CPU between two samples.
func percent(old, now Sample) *float64 {
	took := now.Time.Sub(old.Time)
	if took <= 0 || now.CPU.Total < old.CPU.Total {
		return nil // the same sample, or a container that started anew
	}
	p := float64(now.CPU.Total-old.CPU.Total) / float64(took) * 100
	return &p
}

// A sampler shares samples among those who ask for the same container at about the same time: however many watch it, the
// engine is asked once.
type sampler struct {
	engine runtime.Statser

	mu   sync.Mutex
	last map[string]*sharedSample
}

type sharedSample struct {
	taken time.Time
	done  chan struct{}
	stats runtime.Stats
	err   error
}

const sampleMemory = 30 * time.Second

func newSampler(e runtime.Statser) *sampler {
	return &sampler{engine: e, last: map[string]*sharedSample{}}
}

// take returns a sample that is no older than age.
func (s *sampler) take(ctx context.Context, id string, age time.Duration) (runtime.Stats, error) {
	for {
		s.mu.Lock()
		now := time.Now()
		shared := s.last[id]
		if shared == nil || now.Sub(shared.taken) > age {
			shared = &sharedSample{taken: now, done: make(chan struct{})}
			s.last[id] = shared
			for k, old := range s.last {
				if now.Sub(old.taken) > sampleMemory {
					delete(s.last, k)
				}
			}
			s.mu.Unlock()
			shared.stats, shared.err = s.engine.Stats(ctx, id)
			close(shared.done)
			return shared.stats, shared.err
		}
		s.mu.Unlock()
		select {
		case <-shared.done:
		case <-ctx.Done():
			return runtime.Stats{}, context.Cause(ctx)
		}
		if shared.err == nil || ctx.Err() != nil {
			return shared.stats, shared.err
		}
		// Whoever took it may have left in the middle: that is no answer for us.
		if !errors.Is(shared.err, context.Canceled) {
			return shared.stats, shared.err
		}
		age = 0
	}
}
