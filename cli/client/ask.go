package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// maxLine bounds one line of an answer to an event.
const maxLine = 16 << 20

// An Answer is one reply to an event: progress, or the final one.
type Answer struct {
	Name          string          `json:"name"`
	Data          json.RawMessage `json:"data"`
	Transitioning string          `json:"transitioning"` // yes: progress
	Message       string          `json:"transitioningMessage"`
	Progress      Number          `json:"transitioningProgress"` // percent
	Code          string          `json:"code"`
}

// An EventError is the bad final reply to an event.
type EventError struct {
	Code    string
	Message string
}

func (e *EventError) Error() string {
	if e.Message == "" {
		return "the host answered " + e.Code
	}
	return e.Message
}

// Is matches ErrNotFound by code.
func (e *EventError) Is(target error) bool { return target == ErrNotFound && e.Code == "notFound" }

// Event sends an event to the agent of a host, calls progress (nil is fine) for each progress reply, in order, and
// decodes the data of the final reply into out unless that is nil. timeout is how long the host may be silent; it is
// rounded to milliseconds. A bad final reply is an *EventError.
func (c *Client) Event(ctx context.Context, hostID, name string, data any, timeout time.Duration, progress func(*Answer), out any) error {
	body, err := json.Marshal(map[string]any{"name": name, "data": data, "timeoutMillis": timeout.Milliseconds()})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+"/hosts/"+hostID+"?action=event", bytes.NewReader(body))
	if err != nil {
		return err
	}
	c.identify(req.Header)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/x-ndjson")
	resp, err := c.http.Do(req)
	if err != nil {
		return c.explain(ctx, err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(make([]byte, 0, 64<<10), maxLine)
	for lines.Scan() {
		if resp.StatusCode >= http.StatusMultipleChoices {
			return apiError(resp.StatusCode, lines.Bytes())
		}
		var a Answer
		if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
			return fmt.Errorf("%s answered event %s with something that is not its JSON: %w", c.cfg.Server, name, err)
		}
		switch a.Transitioning {
		case "yes":
			if progress != nil {
				progress(&a)
			}
			continue
		case "error":
			return &EventError{Code: a.Code, Message: a.Message}
		}
		if out == nil || len(a.Data) == 0 {
			return nil
		}
		if err := json.Unmarshal(a.Data, out); err != nil {
			return fmt.Errorf("the answer to %s has another form than this version knows: %w", name, err)
		}
		return nil
	}
	switch err := lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return fmt.Errorf("the answer to %s is larger than %d bytes", name, maxLine)
	case err != nil:
		return c.explain(ctx, err)
	case resp.StatusCode >= http.StatusMultipleChoices:
		return apiError(resp.StatusCode, nil)
	}
	return fmt.Errorf("the server's answer to %s ended too early", name)
}
