package hub

import "sync"

// A group is goroutines that someone waits for, and that cannot be joined any more once the waiting began.
type group struct {
	wg sync.WaitGroup

	mu     sync.Mutex // guards closed, and adding against waiting
	closed bool
}

// start runs f in a goroutine, unless the group is closed.
func (g *group) start(f func()) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.wg.Go(f)
	return true
}

// enter is for a goroutine that is there already: it joins the group until leave, unless the group is closed.
func (g *group) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.wg.Add(1)
	return true
}

func (g *group) leave() { g.wg.Done() }

// close waits for all goroutines and lets no other begin.
func (g *group) close() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.wg.Wait()
}
