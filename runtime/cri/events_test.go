package cri_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	criv1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/droverhq/drover/runtime/cri"
)

func reopen(id string) *criv1.ReopenContainerLogRequest {
	return &criv1.ReopenContainerLogRequest{ContainerId: id}
}

// newer is a runtime that has a stream of events, as containerd from 1.7 on and CRI-O.
type newer struct {
	criv1.UnimplementedRuntimeServiceServer
	events chan *criv1.ContainerEventResponse
	list   []*criv1.Container
}

func (n *newer) ListContainers(context.Context, *criv1.ListContainersRequest) (*criv1.ListContainersResponse, error) {
	return &criv1.ListContainersResponse{Containers: n.list}, nil
}

func (n *newer) GetContainerEvents(_ *criv1.GetEventsRequest, s grpc.ServerStreamingServer[criv1.ContainerEventResponse]) error {
	for {
		select {
		case <-s.Context().Done():
			return s.Context().Err()
		case ev, ok := <-n.events:
			if !ok {
				return nil
			}
			if err := s.Send(ev); err != nil {
				return err
			}
		}
	}
}

func TestEventStream(t *testing.T) {
	began := time.Now()
	n := &newer{events: make(chan *criv1.ContainerEventResponse, 10), list: []*criv1.Container{{
		Id: "c1", Metadata: &criv1.ContainerMetadata{Name: "one"}, Image: &criv1.ImageSpec{Image: "img"}, CreatedAt: began.UnixNano(),
		Labels: map[string]string{"a": "1"},
	}}}
	socket := t.TempDir() + "/s"
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	criv1.RegisterRuntimeServiceServer(server, n)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() { server.Stop(); <-served })
	e, err := cri.New(cri.Config{Socket: socket, Poll: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	closing(t, e)
	for i, kind := range []criv1.ContainerEventType{
		criv1.ContainerEventType_CONTAINER_CREATED_EVENT, criv1.ContainerEventType_CONTAINER_STARTED_EVENT,
		criv1.ContainerEventType_CONTAINER_STOPPED_EVENT, criv1.ContainerEventType_CONTAINER_DELETED_EVENT,
	} {
		n.events <- &criv1.ContainerEventResponse{ContainerId: "c1", ContainerEventType: kind, CreatedAt: began.Add(time.Duration(i) * time.Second).UnixNano()}
	}
	n.events <- &criv1.ContainerEventResponse{ContainerId: "sandbox", ContainerEventType: criv1.ContainerEventType_CONTAINER_STARTED_EVENT}
	close(n.events)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var got []string
	var last error
	for notice, err := range e.Watch(ctx, began) {
		if last = err; err == nil {
			got = append(got, notice.Action)
			if notice.ID != "c1" || notice.Name != "one" || notice.Image != "img" || notice.Labels["a"] != "1" {
				t.Errorf("notice: %+v", notice)
			}
		}
	}
	// The creation is known from the first look, and is not told twice.
	if text := strings.Join(got, " "); text != "create start die destroy" || last == nil || ctx.Err() != nil {
		t.Errorf("got %s, %v", text, last)
	}
}
