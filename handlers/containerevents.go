package handlers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/droverhq/drover/events"
	"github.com/droverhq/drover/runtime"
)

// A Poster creates resources of the server; [events.Client] is one.
type Poster interface {
	Post(ctx context.Context, resourceType string, body any) error
}

// A ChangeSource tells what happens to containers; [runtime.Cache] is one.
type ChangeSource interface {
	Subscribe(limit int) *runtime.Subscription
	Ready() <-chan struct{}
	Snapshot() []runtime.ContainerSummary
}

// An Inspector returns the engine's JSON of a container; every engine is one.
type Inspector interface {
	Inspect(ctx context.Context, id string) (json.RawMessage, error)
}

// ContainerEventsConfig configures [ContainerEvents].
type ContainerEventsConfig struct {
	Source   ChangeSource // required
	Engine   Inspector    // required
	Poster   Poster       // required
	HostUUID string       // required; reportedHostUuid

	// Initial posts a start for each container that runs when Run begins. Rancher's server learns of them by ping
	// and wants none.
	Initial bool
	// Lanes is how many posts are made at the same time; one container's all go through one lane. Default 4.
	Lanes int
	// Queue is how many changes wait in each lane; default 256. Beyond it, the waiting changes of one container
	// shrink to the last one, and then the oldest is lost; both are counted.
	Queue int
	// Attempts is how often a post is tried before the change is lost; default 20. The delay between two doubles
	// from RetryMin to RetryMax; defaults 500 ms and 30 s.
	Attempts           int
	RetryMin, RetryMax time.Duration
	// Log gets what was lost; nil discards.
	Log logrus.FieldLogger
}

// ContainerEventsStats are counters since the start.
type ContainerEventsStats struct {
	Posted    uint64
	Retried   uint64 // failed attempts that were tried again
	Coalesced uint64 // left out, because a later change of the same container was waiting
	Dropped   uint64 // lost: refused by the server, tried too often, or too many waited
	Queued    int
}

// ContainerEvents posts what happens to containers as containerEvent: start, stop, die, kill and destroy, in the
// engine's order for each container.
type ContainerEvents struct {
	cfg   ContainerEventsConfig
	lanes []*lane

	// mu guards what follows, and the queues of the lanes.
	mu    sync.Mutex
	stats ContainerEventsStats
	known bool // the server took a post: it knows the host
}

// A lane is a queue whose changes are posted one after another.
type lane struct {
	queue []runtime.Notice
	wake  chan struct{}
}

// containerEvent is the resource that is posted.
type containerEvent struct {
	ExternalID        string          `json:"externalId"`
	ExternalStatus    string          `json:"externalStatus"`
	ExternalFrom      string          `json:"externalFrom"`
	ExternalTimestamp int64           `json:"externalTimestamp"` // seconds since the epoch
	ReportedHostUUID  string          `json:"reportedHostUuid"`
	DockerInspect     json.RawMessage `json:"dockerInspect"`
}

// goneInspect is what is sent for a container that is no more.
const goneInspect = `{"Config":null,"Mounts":null,"NetworkSettings":null}`

// NewContainerEvents returns a poster that waits for Run.
func NewContainerEvents(cfg ContainerEventsConfig) *ContainerEvents {
	if cfg.Lanes <= 0 {
		cfg.Lanes = 4
	}
	if cfg.Queue <= 0 {
		cfg.Queue = 256
	}
	if cfg.Attempts <= 0 {
		cfg.Attempts = 20
	}
	if cfg.RetryMin <= 0 {
		cfg.RetryMin = 500 * time.Millisecond
	}
	if cfg.RetryMax <= 0 {
		cfg.RetryMax = 30 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = discard()
	}
	c := &ContainerEvents{cfg: cfg}
	for range cfg.Lanes {
		c.lanes = append(c.lanes, &lane{wake: make(chan struct{}, 1)})
	}
	return c
}

// Stats returns the counters.
func (c *ContainerEvents) Stats() ContainerEventsStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	for _, l := range c.lanes {
		s.Queued += len(l.queue)
	}
	return s
}

// Run posts until ctx ends, and returns ctx's error. It is called once. What waits then is lost: the next start, or
// the next ping, tells the server how things are.
func (c *ContainerEvents) Run(ctx context.Context) error {
	sub := c.cfg.Source.Subscribe(0)
	defer sub.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, l := range c.lanes {
		wg.Go(func() { c.work(ctx, l) })
	}
	if c.cfg.Initial {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.cfg.Source.Ready():
		}
		for _, s := range c.cfg.Source.Snapshot() {
			if s.State == "running" || s.State == "paused" {
				c.offer(runtime.Notice{ID: s.ID, Action: "start", Image: s.Image, Time: time.Now()})
			}
		}
	}
	for {
		ch, err := sub.Next(ctx)
		if err != nil {
			return err
		}
		switch ch.Notice.Action {
		case "start", "stop", "die", "kill", "destroy":
			c.offer(ch.Notice)
		}
	}
}

// offer queues a change in its container's lane.
func (c *ContainerEvents) offer(n runtime.Notice) {
	h := fnv.New32a()
	h.Write([]byte(n.ID))
	l := c.lanes[h.Sum32()%uint32(len(c.lanes))]
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(l.queue) >= c.cfg.Queue {
		kept := l.queue[:0]
		for _, q := range l.queue {
			if q.ID != n.ID {
				kept = append(kept, q)
			}
		}
		c.stats.Coalesced += uint64(len(l.queue) - len(kept))
		clear(l.queue[len(kept):])
		l.queue = kept
	}
	if len(l.queue) >= c.cfg.Queue {
		c.stats.Dropped++
		c.cfg.Log.WithField("container", l.queue[0].ID).WithField("status", l.queue[0].Action).
			Warn("container event lost: too many wait for the server")
		l.queue = append(l.queue[:0], l.queue[1:]...)
	}
	l.queue = append(l.queue, n)
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// work posts the changes of one lane until ctx ends.
func (c *ContainerEvents) work(ctx context.Context, l *lane) {
	for {
		c.mu.Lock()
		var n runtime.Notice
		ok := len(l.queue) > 0
		if ok {
			n = l.queue[0]
			l.queue = append(l.queue[:0], l.queue[1:]...)
		}
		c.mu.Unlock()
		if !ok {
			select {
			case <-ctx.Done():
				return
			case <-l.wake:
			}
			continue
		}
		err := c.deliver(ctx, n)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			c.count(func(s *ContainerEventsStats) { s.Dropped++ })
			c.cfg.Log.WithField("container", n.ID).WithField("status", n.Action).WithError(err).
				Warn("container event lost")
		}
	}
}

// deliver posts one change, again and again if need be.
func (c *ContainerEvents) deliver(ctx context.Context, n runtime.Notice) error {
	body := containerEvent{
		ExternalID: n.ID, ExternalStatus: n.Action, ExternalFrom: n.Image, ExternalTimestamp: n.Time.Unix(),
		ReportedHostUUID: c.cfg.HostUUID, DockerInspect: c.inspect(ctx, n),
	}
	delay := c.cfg.RetryMin
	for try := 1; ; try++ {
		err := c.cfg.Poster.Post(ctx, "containerEvent", body)
		if err == nil {
			c.mu.Lock()
			c.stats.Posted++
			c.known = true
			c.mu.Unlock()
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if try >= c.cfg.Attempts || c.refused(err) {
			return fmt.Errorf("post containerEvent: %w", err)
		}
		c.count(func(s *ContainerEventsStats) { s.Retried++ })
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(delay):
		}
		delay = min(2*delay, c.cfg.RetryMax)
	}
}

// refused reports whether trying again is useless. A 422 is not final as long as the server may not know the host: it
// learns of it by the first ping.
func (c *ContainerEvents) refused(err error) bool {
	var answer *events.APIError
	if !errors.As(err, &answer) {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch code := answer.Status; {
	case code == 422:
		return c.known
	case code == 408 || code == 409 || code == 429 || code == 401 || code == 403:
		return false
	default:
		return code >= 400 && code < 500
	}
}

// inspect returns what the engine knows of the container, or what stands for a container that is gone.
func (c *ContainerEvents) inspect(ctx context.Context, n runtime.Notice) json.RawMessage {
	if n.Action != "destroy" {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		raw, err := c.cfg.Engine.Inspect(ctx, n.ID)
		if err == nil {
			return raw
		}
		if !errors.Is(err, runtime.ErrNotFound) && ctx.Err() == nil {
			c.cfg.Log.WithField("container", n.ID).WithError(err).Debug("container event without details")
		}
	}
	return json.RawMessage(goneInspect)
}

func (c *ContainerEvents) count(f func(*ContainerEventsStats)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(&c.stats)
}
