package streamclient

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"io"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"go.uber.org/goleak"

	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/runtime/docker"
	"github.com/droverhq/drover/service"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	patience = 90 * time.Second
	image    = "drover-test/busybox:1"
)

// A node is the real dockerd behind a door.
type node struct {
	t       testing.TB
	engine  *docker.Engine
	service *service.Service
	url     string
}

func newNode(t testing.TB, change func(*service.Config)) *node {
	t.Helper()
	engine, err := docker.New(docker.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := engine.Ping(t.Context()); err != nil {
		t.Fatalf("these tests need a dockerd: %v", err)
	}
	log := logrus.New()
	log.SetOutput(io.Discard)
	cfg := service.Config{Engine: engine, Log: log, Grace: time.Second}
	if change != nil {
		change(&cfg)
	}
	s, err := service.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(s)
	t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
		s.Close()
		engine.Close()
	})
	return &node{t: t, engine: engine, service: s, url: srv.URL}
}

// client is a client of the door.
func (n *node) client() *Client { return clientOf(n.t, Config{Base: n.url}) }

func clientOf(t testing.TB, cfg Config) *Client {
	t.Helper()
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// run starts a container that is removed with the test.
func (n *node) run(spec runtime.ContainerSpec) string {
	n.t.Helper()
	var suffix [6]byte
	_, _ = rand.Read(suffix[:])
	spec.Name = "streamclient-" + hex.EncodeToString(suffix[:])
	spec.Image = image
	if spec.NetworkMode == "" {
		spec.NetworkMode = "none"
	}
	if spec.Cmd == nil {
		spec.Cmd = []string{"sleep", "3600"}
	}
	id, _, err := n.engine.Create(context.Background(), &spec)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		if err := n.engine.Remove(context.Background(), id, runtime.RemoveOptions{Force: true}); err != nil {
			n.t.Error(err)
		}
	})
	if err := n.engine.Start(context.Background(), id); err != nil {
		n.t.Fatal(err)
	}
	return id
}

func bounded(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// processes returns how many processes of the container have mark in their command line.
func (n *node) processes(id, mark string) int {
	n.t.Helper()
	_, rows, err := n.engine.Top(context.Background(), id, []string{"-o", "pid,args"})
	if err != nil {
		n.t.Fatal(err)
	}
	count := 0
	for _, row := range rows {
		if strings.Contains(strings.Join(row[1:], " "), mark) {
			count++
		}
	}
	return count
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
