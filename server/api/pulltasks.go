package api

import (
	"time"

	"github.com/droverhq/drover/server/store"
)

func (h *Handler) pullTaskEndpoint() *endpoint {
	return &endpoint{
		list: func(q *request) ([]*resource, error) {
			var out []*resource
			for _, t := range h.store.PullTasks.List() {
				out = append(out, pullTaskResource(t))
			}
			return out, nil
		},
		get: func(q *request, id string) (*resource, error) {
			t, err := h.store.PullTasks.Get(id)
			if err != nil {
				return nil, fromCompute(err)
			}
			return pullTaskResource(t), nil
		},
		create: func(q *request, fields map[string]any) (*resource, error) {
			t, err := h.compute.Pull(q.ctx(), AdminAccount, text(fields["image"]), textList(fields["hostIds"]))
			if err != nil {
				return nil, fromCompute(err)
			}
			return pullTaskResource(t), nil
		},
	}
}

func pullTaskResource(t *store.PullTask) *resource {
	return &resource{typ: "pullTask", id: t.ID, fields: map[string]any{
		"image": t.Image, "hostIds": orEmptyList(t.HostIDs), "kind": "pullTask", "mode": "all", "state": t.State,
		"transitioning": orNo(t.Transitioning), "transitioningMessage": orNil(t.TransitioningMessage),
		"transitioningProgress": orNilInt(int64(t.TransitioningProgress)), "status": orEmptyMap(t.Status),
		"accountId": t.AccountID, "created": t.Created, "removed": time.Time{},
	}}
}
