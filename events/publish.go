package events

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/utils/backoff"
)

// publisher posts replies to a server that does not take them over the socket, several at once, those of one key in
// order. A reply is tried until the server took it or refused it for good, or its time is over.
type publisher struct {
	log     logrus.FieldLogger
	outbox  *outbox
	counts  *counters
	rest    *rest
	posters int
	policy  backoff.Policy

	cancel  context.CancelFunc
	running sync.WaitGroup
}

// start begins to post. It may be called again after stop.
func (p *publisher) start() {
	if p.cancel != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	for range p.posters {
		p.running.Go(func() { p.run(ctx) })
	}
}

// stop ends posting; what is on its way is given back to the outbox.
func (p *publisher) stop() {
	if p.cancel != nil {
		p.cancel()
		p.running.Wait()
		p.cancel = nil
	}
}

func (p *publisher) run(ctx context.Context) {
	var buf []byte
	for {
		f, err := p.outbox.next(ctx)
		if err != nil {
			return
		}
		reply, err := wire.DecodeReply(f.body)
		if err != nil { // it was encoded by ourselves
			p.log.WithError(err).Error("a reply of the journal cannot be read")
			f.over()
			continue
		}
		buf = wire.AppendRancherReply(buf[:0], reply)
		p.post(ctx, f, reply, buf)
		if cap(buf) > 1<<20 {
			buf = nil
		}
	}
}

func (p *publisher) post(ctx context.Context, f offer, reply *wire.Reply, body []byte) {
	resp, err := p.rest.post(ctx, apiPublish, publishType, body, nil)
	if err == nil {
		if f.e.kind != kindOnce {
			p.counts.taken.Add(1)
		}
		f.over()
		return
	}
	if ctx.Err() != nil {
		f.back()
		return
	}
	p.counts.publishFailures.Add(1)
	log := p.log.WithError(err).WithFields(logrus.Fields{"event": reply.EventID(), "failures": f.e.failures + 1})
	if resp != nil && refused(err) {
		p.counts.refused.Add(1)
		log.Error("the server refused a reply for good")
		f.over()
		return
	}
	delay := p.policy.After(f.e.failures)
	if resp != nil {
		delay = backoff.AtLeast(retryAfter(resp.header, time.Now()), delay)
	}
	if f.e.failures == 0 {
		log.WithField("retry", delay.Round(time.Millisecond)).Warn("publishing a reply failed")
	} else {
		log.WithField("retry", delay.Round(time.Millisecond)).Debug("publishing a reply failed again")
	}
	f.retry(delay)
}

// refused reports whether an answer of the server will not change: it understood the reply and does not want it.
func refused(err error) bool {
	var e *APIError
	if !errors.As(err, &e) {
		return false
	}
	switch e.Status {
	case http.StatusBadRequest, http.StatusForbidden, http.StatusConflict, http.StatusGone, http.StatusRequestEntityTooLarge,
		http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity:
		return true
	}
	return false
}
