package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/droverhq/drover/cli/client"
	"github.com/droverhq/drover/cli/ui"
)

// errGone means that the container does not exist any more.
var errGone = errors.New("it was removed")

// settle polls a container until nothing is under way. A change that failed is an error with the server's words.
// progress may be nil.
func settle(ctx context.Context, c *client.Client, id string, progress *ui.Progress) (*client.Container, error) {
	return poll(ctx, func() (*client.Container, bool, error) {
		var now client.Container
		err := c.Do(ctx, http.MethodGet, "containers/"+id, nil, &now)
		if errors.Is(err, client.ErrNotFound) || err == nil && (now.State.State == "removed" || now.State.State == "purged") {
			return nil, true, errGone
		}
		if err != nil {
			return nil, true, err
		}
		if progress != nil {
			progress.Set("%s", describe(now.State, now.Name))
		}
		if now.Transitioning == "error" || now.State.State == "error" {
			text := now.Message
			if text == "" {
				text = "the host gave no reason"
			}
			return &now, true, errors.New(text)
		}
		return &now, now.Transitioning != "yes", nil
	})
}

// describe words a state for the progress line.
func describe(s client.State, name string) string {
	text := s.State
	if s.Message != "" {
		text += ": " + s.Message
	}
	if s.Progress > 0 && s.Progress < 100 {
		text += fmt.Sprintf(" (%d %%)", s.Progress)
	}
	return strings.TrimSpace(name + " " + text)
}

// poll calls f until it is done, often at first and once a second later.
func poll[T any](ctx context.Context, f func() (T, bool, error)) (T, error) {
	return pollWithin(ctx, time.Second, f)
}

// pollWithin is poll with another time between two calls at most.
func pollWithin[T any](ctx context.Context, most time.Duration, f func() (T, bool, error)) (T, error) {
	wait := 30 * time.Millisecond
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		v, done, err := f()
		if done || err != nil {
			return v, err
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return v, ctx.Err()
		case <-timer.C:
		}
		wait = min(wait*3/2, most)
	}
}

// forEach does one thing to many objects, a few at a time, and prints the identifier of each that was changed in the
// order of refs; "" is none. All are tried; the errors come last.
func (a *app) forEach(working string, refs []string, do func(ref string) (string, error)) error {
	p := a.progress()
	p.Set("%s", working)
	type outcome struct {
		id  string
		err error
	}
	outcomes := make([]outcome, len(refs))
	slots := make(chan struct{}, 8)
	var wg sync.WaitGroup
	for i, ref := range refs {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			id, err := do(ref)
			outcomes[i] = outcome{id, err}
		})
	}
	wg.Wait()
	p.Stop()
	type result struct {
		Name string `json:"name"`
		ID   string `json:"id"`
	}
	done := []result{}
	var errs []error
	for i, o := range outcomes {
		switch {
		case o.err == nil && o.id == "":
		case o.err == nil:
			done = append(done, result{refs[i], o.id})
		case len(refs) == 1:
			errs = append(errs, o.err)
		default:
			errs = append(errs, fmt.Errorf("%s: %w", refs[i], o.err))
		}
	}
	err := a.out.Print(done, func() error {
		for _, r := range done {
			text := r.Name
			if a.flags.quiet {
				text = r.ID
			}
			if _, err := fmt.Fprintln(a.out.Out, text); err != nil {
				return err
			}
		}
		return nil
	})
	return errors.Join(append(errs, err)...)
}
