package critest

import (
	"context"
	"net"
	"testing"

	"google.golang.org/grpc"
	criv1 "k8s.io/cri-api/pkg/apis/runtime/v1"
)

type stub struct {
	criv1.UnimplementedRuntimeServiceServer
	name string
}

// Version implements criv1.RuntimeServiceServer.
func (s stub) Version(context.Context, *criv1.VersionRequest) (*criv1.VersionResponse, error) {
	return &criv1.VersionResponse{Version: "0.1.0", RuntimeName: s.name, RuntimeVersion: "1", RuntimeApiVersion: "v1"}, nil
}

// Stub serves a runtime at l that tells its name and can do nothing, until the test ends.
func Stub(t testing.TB, l net.Listener, name string) {
	srv := grpc.NewServer()
	criv1.RegisterRuntimeServiceServer(srv, stub{name: name})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l) // ends with the test
	}()
	t.Cleanup(func() { srv.Stop(); <-done })
}
