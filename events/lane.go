package events

import "context"

// Exclusive waits until no other compute work is going on, where Config.Serialize asks for that, and returns a
// function that must be called when the caller's own is done. The router already holds it around
// compute.instance.deactivate, .force.stop and .remove; the handler of compute.instance.activate calls it around create
// and start alone. Without Serialize, or for an event that holds it already, it returns at once. The error is ctx's.
func Exclusive(ctx context.Context) (release func(), err error) {
	l, _ := ctx.Value(laneKey{}).(*lane)
	if l == nil {
		return func() {}, nil
	}
	return l.acquire(ctx)
}

type laneKey struct{}

// lane lets one holder in at a time.
type lane struct{ token chan struct{} }

func newLane() *lane { return &lane{token: make(chan struct{}, 1)} }

func (l *lane) acquire(ctx context.Context) (func(), error) {
	select {
	case l.token <- struct{}{}:
		return func() { <-l.token }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// holdLane holds the lane of ctx, if there is one, for the events that need it from end to end. The context returned
// has the lane no more, so that Exclusive does not wait for its own caller.
func holdLane(ctx context.Context, name string) (context.Context, func(), error) {
	switch name {
	case "compute.instance.deactivate", "compute.instance.force.stop", "compute.instance.remove":
		release, err := Exclusive(ctx)
		if err != nil {
			return ctx, nil, err
		}
		return context.WithValue(ctx, laneKey{}, (*lane)(nil)), release, nil
	}
	return ctx, func() {}, nil
}
