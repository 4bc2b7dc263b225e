package handlers_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/droverhq/drover/handlers"
	"github.com/droverhq/drover/runtime"
)

var update = flag.Bool("update", false, "write the golden replies anew")

// TestGoldenReplies runs each event of testdata and compares the whole reply.
func TestGoldenReplies(t *testing.T) {
	running := func(s *stub) {
		s.add(runtime.ContainerStatus{
			ID: stubID, Name: "r-test-c861f990", Image: "nginx:latest", Running: true,
			Labels: map[string]string{handlers.LabelUUID: testUUID}, IP: "172.17.0.2",
		},
			runtime.Port{IP: "0.0.0.0", PrivatePort: 12201, PublicPort: 32768, Protocol: "udp"},
			runtime.Port{IP: "::", PrivatePort: 12201, PublicPort: 32768, Protocol: "udp"},
			runtime.Port{PrivatePort: 8080, Protocol: "tcp"})
	}
	stopped := func(s *stub) {
		running(s)
		s.end(s.containers[stubID])
		s.containers[stubID].ports = nil
	}
	nothing := func(*stub) {}
	for _, c := range []struct {
		name    string // of the reply
		request string
		given   func(*stub)
	}{
		{"activate", "activate", nothing},
		{"activate-wide", "wide", nothing},
		{"activate-running", "activate", running},
		{"activate-stopped", "activate", stopped},
		{"deactivate", "deactivate", running},
		{"deactivate-absent", "deactivate", nothing},
		{"remove", "remove", running},
		{"remove-absent", "remove", nothing},
		{"inspect", "inspect", running},
		{"inspect-absent", "inspect", nothing},
		{"pull", "pull", nothing},
		{"force.stop", "force.stop", running},
		{"image.activate", "image.activate", nothing},
		{"image.build", "image.build", nothing},
		{"volume.activate", "volume.activate", nothing},
		{"volume.remove", "volume.remove", func(s *stub) { s.volumes["vol1"] = runtime.Volume{Name: "vol1"} }},
		{"config.update", "config.update", nothing},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStub()
			c.given(s)
			r := newRouter(s, handlers.Options{HostIP: "10.0.0.5"})
			reply := *serve(t, r, event(t, c.request))
			reply.ID, reply.Time = "", 0
			got, err := json.MarshalIndent(reply, "", " ")
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, '\n')
			name := filepath.Join("testdata", c.name+".reply.json")
			if *update {
				if err := os.WriteFile(name, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("reply is\n%s\nwant\n%s", got, want)
			}
		})
	}
}
