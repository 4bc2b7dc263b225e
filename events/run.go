package events

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"github.com/sirupsen/logrus"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/utils/backoff"
)

// errLogout and errGoAway are why a session ended at the server's word.
var (
	errLogout = errors.New("the server ended the subscription")
	errGoAway = errors.New("the server is shutting down")
)

// goAwayGrace is how long a server that announced its end may take to close.
const goAwayGrace = 5 * time.Second

// Run connects, answers events and connects again, until ctx ends or the server refuses the credentials. It then takes
// no more events, lets those that run finish within Config.Drain, hands their replies over, closes the socket and
// returns: nil when ctx ended it, otherwise an error that is [ErrUnauthorized] when the credentials are no good or
// [ErrJournalInUse] when another process holds the journal. Everything it started has ended then, but for handlers that
// do not heed their context. Run may be called once.
func (c *Client) Run(ctx context.Context) error {
	if c.started.Swap(true) {
		return errors.New("events: Run was called before")
	}
	defer c.rest.close()
	defer c.enter(StateClosed, nil)

	// The journal opens while the first dial is under way.
	var opened error
	ready := make(chan struct{})
	var janitor sync.WaitGroup
	go func() {
		defer close(ready)
		if opened = c.outbox.open(ctx, c.cfg.Journal); opened == nil {
			janitor.Go(func() { c.outbox.run(c.cfg.ResendAfter) })
		}
	}()
	err := c.connect(ctx, ready, &opened)
	<-ready
	if !c.dispatch.drained() {
		c.drain(nil, err == nil && opened == nil)
	}
	c.publish.stop()
	c.outbox.stop()
	janitor.Wait()
	if opened != nil && ctx.Err() == nil {
		return fmt.Errorf("events: opening the journal: %w", opened)
	}
	return err
}

// connect keeps a session going until ctx ends or there is no point any more. A session that is open when ctx ends
// drains before it closes.
func (c *Client) connect(ctx context.Context, ready <-chan struct{}, opened *error) error {
	retry := backoff.Policy{First: c.cfg.FirstDelay, Max: c.cfg.MaxDelay}.Start()
	if proxy := c.dialer.proxy(c.base); proxy != "" {
		c.log.WithField("proxy", proxy).Info("the server is reached through a proxy")
	}
	for ctx.Err() == nil {
		select {
		case <-ready:
			if *opened != nil {
				return nil
			}
		default:
		}
		c.enter(StateConnecting, nil)
		s, err := c.dialer.dial(ctx)
		var least, delay time.Duration
		if err == nil {
			select {
			case <-ready:
			case <-ctx.Done():
			}
			if ctx.Err() != nil || *opened != nil {
				s.fail(errClosing)
				return nil
			}
			least, err = c.hold(ctx, s)
			switch held := time.Since(s.opened); {
			case held >= c.cfg.Steady:
				retry.Reset()
				delay = retry.Next()
			case s.useful.Load():
				delay = retry.Again()
			default:
				delay = retry.Next()
			}
		} else {
			c.counts.connectFailures.Add(1)
			var refusal *dialError
			if errors.As(err, &refusal) {
				least = refusal.retryAfter
			}
			delay = retry.Next()
		}
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, ErrUnauthorized) {
			c.enter(StateDraining, func(st *Status) { st.LastError = err.Error() })
			return err
		}
		delay = backoff.AtLeast(least, delay)
		c.log.WithError(err).WithField("retry", delay.Round(time.Millisecond)).Warn("not connected")
		c.enter(StateBackingOff, func(st *Status) {
			st.LastError, st.NextDial = err.Error(), time.Now().Add(delay)
		})
		_ = backoff.Sleep(ctx, delay)
	}
	return nil
}

// hold serves one session to its end. It returns why it ended and how long the server wants to be left alone.
func (c *Client) hold(ctx context.Context, s *session) (least time.Duration, err error) {
	c.counts.connects.Add(1)
	c.inBand.Store(s.drover)
	c.current.Store(s)
	c.enter(StateConnected, func(st *Status) {
		st.Drover, st.ServerVersion, st.ClockSkew, st.LastFrame = s.drover, s.version, s.skew, s.opened
	})
	c.log.WithFields(logrus.Fields{
		"server": c.base.Host, "version": s.version, "replies": doorName(s.drover), "skew": s.skew.Round(time.Millisecond),
	}).Info("subscribed")

	var wg sync.WaitGroup
	over, end := context.WithCancel(context.Background())
	if s.drover {
		c.publish.stop()
		c.outbox.rebuild()
		wg.Go(func() { c.offer(over, s) })
	} else {
		c.outbox.wake()
		if c.publish.cancel == nil {
			c.outbox.rebuild()
			c.publish.start()
		}
	}
	c.outbox.setConnected(true)
	wg.Go(func() {
		select {
		case <-ctx.Done():
			c.drain(s, true)
		case <-over.Done():
		}
	})
	err = s.serve(func(frame []byte) { c.frame(s, frame) })
	c.outbox.setConnected(false)
	end()
	wg.Wait()
	c.current.CompareAndSwap(s, nil)
	c.mu.Lock()
	c.status.LastFrame = time.Unix(0, s.raw.life.Load())
	c.mu.Unlock()
	switch n := s.leaving.Load(); {
	case n > 0:
		return time.Duration(n), errGoAway
	case n < 0:
		return 0, errLogout
	}
	return 0, ordinary(err)
}

func doorName(drover bool) string {
	if drover {
		return "over the socket"
	}
	return "by POST"
}

// ordinary words the end of a session.
func ordinary(err error) error {
	var ce *websocket.CloseError
	if errors.As(err, &ce) {
		switch ce.Code {
		case websocket.CloseNormalClosure, websocket.CloseGoingAway, websocket.CloseServiceRestart, websocket.CloseNoStatusReceived:
			return fmt.Errorf("the server closed the connection (%d)", ce.Code)
		}
	}
	return fmt.Errorf("the connection was lost: %w", err)
}

// offer sends replies over s until ctx ends or s does.
func (c *Client) offer(ctx context.Context, s *session) {
	for {
		f, err := c.outbox.next(ctx)
		if err != nil {
			return
		}
		if err := s.send(ctx, f.body); err != nil {
			f.back()
			return
		}
		f.sent(time.Now())
	}
}

// frame takes one frame from the reader.
func (c *Client) frame(s *session, b []byte) {
	ev, err := wire.DecodeEvent(b)
	switch {
	case ev.Name == wire.NameAck && s.drover:
		ack, err := wire.DecodeAck(ev.Data)
		if err != nil {
			c.dispatch.malformed(ev, err)
		}
		c.outbox.taken(ack.IDs)
		return
	case ev.Name == wire.NameGoAway && s.drover:
		away, _ := wire.DecodeGoAway(ev.Data)
		millis := min(max(away.RetryAfterMillis, 0), int64(maxRetryAfter/time.Millisecond))
		s.leaving.CompareAndSwap(0, max(1, millis*int64(time.Millisecond)))
		time.AfterFunc(goAwayGrace, func() { s.shut(websocket.CloseNormalClosure) })
		return
	case ev.Name == wire.NameLogout && ev.ReplyTo == "":
		s.leaving.CompareAndSwap(0, -1)
		s.shut(websocket.CloseNormalClosure)
		return
	}
	if err == nil {
		err = checkEvent(ev)
	}
	if err != nil {
		if ev.Name == wire.NamePing && ev.ReplyTo == "" {
			c.counts.keepAlives.Add(1) // nobody waits for an answer, and life it is
			return
		}
		c.dispatch.malformed(ev, err)
		return
	}
	if ev.Name != wire.NamePing || ev.ReplyTo != "" {
		s.useful.Store(true)
	}
	c.dispatch.submit(ev, b)
}

// drain finishes what runs, within Config.Drain, hands the replies over if handOver says that there is hope, and then
// closes s, if there is one.
func (c *Client) drain(s *session, handOver bool) {
	c.enter(StateDraining, nil)
	ctx, cancel := context.WithTimeout(context.Background(), c.cfg.Drain)
	defer cancel()
	handlers, cancelHandlers := context.WithTimeout(ctx, c.cfg.Drain*7/10)
	defer cancelHandlers()
	if !c.dispatch.drain(handlers, c.cfg.Drain/10) {
		c.log.Error("a handler does not end although its context did")
	}
	switch {
	case s != nil && s.drover:
		c.outbox.flush(ctx, s.dead)
		s.shut(websocket.CloseNormalClosure)
	case s != nil:
		c.outbox.flush(ctx, nil)
		s.shut(websocket.CloseNormalClosure)
	case handOver && c.publish.cancel != nil:
		c.outbox.flush(ctx, nil)
	}
}
