package compute

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/droverhq/drover/events/wire"
	"github.com/droverhq/drover/server/store"
)

var update = flag.Bool("update", false, "write the golden files")

// golden compares JSON with a file.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, got, "", "  "); err != nil {
		t.Fatal(err)
	}
	pretty.WriteByte('\n')
	file := filepath.Join("testdata", name+".json")
	if *update {
		if err := os.WriteFile(file, pretty.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(pretty.Bytes(), want) {
		t.Errorf("%s differs; got:\n%s", file, pretty.Bytes())
	}
}

func exampleJob(t *testing.T, fields string) *job {
	t.Helper()
	s, err := parseSpec(json.RawMessage(fields))
	if err != nil {
		t.Fatal(err)
	}
	at := time.UnixMilli(1700000000000)
	return &job{
		spec: s,
		host: &store.Host{
			Meta: store.Meta{ID: "1h5", Created: at}, UUID: "dockerhost1", Hostname: "one", AccountID: "1a1", AgentID: "1a91",
			State: store.StateActive, Connection: store.ConnectionOnline, StoragePoolUUID: "dockerpool1",
		},
		c: &store.Container{
			Meta: store.Meta{ID: "1i211", Created: at}, UUID: "c861f990-4472-4fa1-960f-65171b544c28", Name: s.Name, AccountID: "1a1",
			HostID: "1h5", MapID: "1ihm50", ImageUUID: "docker:" + s.image(), Fields: json.RawMessage(fields),
		},
	}
}

const wide = `{"name":"test","description":"d","imageUuid":"docker:nginx:latest","command":["sleep","60"],"environment":{"A":"b"},
	"labels":{"app":"x"},"ports":["8080:80/tcp","127.0.0.1:53:53/udp","[::1]:1:2","443"],"hostname":"h","requestedHostId":"1h5",
	"dataVolumes":["/srv:/data","vol1:/v:ro"],"volumeDriver":"local","restartPolicy":{"name":"always"},"memory":536870912,
	"memoryReservation":1024,"milliCpuReservation":500,"networkMode":"host","pull":"never","tty":true}`

func TestEventsOfSteps(t *testing.T) {
	five := 5
	for step, w := range map[string]*work{
		"image":      newWork(opCreate, []string{stepImage}, ""),
		"pull":       newWork(opCreate, []string{stepPull}, ""),
		"volume":     newWork(opCreate, []string{stepVolume + "vol1"}, ""),
		"activate":   newWork(opCreate, []string{stepActivate}, ""),
		"deactivate": newWork(opStop, []string{stepDeactivate}, ""),
		"remove":     newWork(opRemove, []string{stepRemove}, ""),
	} {
		t.Run(step, func(t *testing.T) {
			w.EventID, w.Timeout = "event-id", &five
			ev := exampleJob(t, wide).event(w)
			raw, err := json.Marshal(ev)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, step, raw)
		})
	}
}

func TestNetworkModes(t *testing.T) {
	for mode, kind := range map[string]string{
		"": "dockerBridge", "bridge": "dockerBridge", "managed": "dockerBridge", "host": "dockerHost", "none": "dockerNone", "container:x": "dockerContainer",
	} {
		j := exampleJob(t, `{"imageUuid":"a","networkMode":"`+mode+`"}`)
		j.networkContainer = &store.Container{Meta: store.Meta{ID: "1i7"}, UUID: "other", ExternalID: "abc"}
		j.volumesFrom = []*store.Container{{Meta: store.Meta{ID: "1i8"}, UUID: "third"}}
		raw := string(j.event(newWork(opStart, []string{stepActivate}, "")).Data)
		for _, want := range []string{`"kind":"` + kind + `"`, `"id":7,`, `"externalId":"abc"`, `"dataVolumesFromContainers":[{`, `"uuid":"third"`} {
			if !strings.Contains(raw, want) {
				t.Errorf("mode %q lacks %s: %s", mode, want, raw)
			}
		}
	}
}

func TestAHostThatIsAwayGetsLonger(t *testing.T) {
	j := exampleJob(t, `{"imageUuid":"a"}`)
	w := newWork(opRemove, []string{stepRemove}, "")
	if got := j.event(w).TimeoutMillis; got != removeTimeout.Milliseconds() {
		t.Errorf("online: %d", got)
	}
	j.host.Connection = store.ConnectionReconnecting
	if got := j.event(w).TimeoutMillis; got != awayTimeout.Milliseconds() {
		t.Errorf("away: %d", got)
	}
}

func TestNativeContainersCarryWhatIsKnown(t *testing.T) {
	j := exampleJob(t, `{"imageUuid":"a"}`)
	j.c.Fields, j.c.Native, j.c.ExternalID, j.spec = nil, true, "feed", &spec{}
	raw := string(j.event(newWork(opStart, []string{stepActivate}, "")).Data)
	for _, want := range []string{`"nativeContainer":true`, `"externalId":"feed"`, `"fields":{"imageUuid":"docker:a"}`} {
		if !strings.Contains(raw, want) {
			t.Errorf("lacks %s: %s", want, raw)
		}
	}
}

func TestParsePort(t *testing.T) {
	for text, want := range map[string]port{
		"80": {"", 0, 80, "tcp"}, "80/udp": {"", 0, 80, "udp"}, "8080:80": {"", 8080, 80, "tcp"}, "8080:80/TCP": {"", 8080, 80, "tcp"},
		"127.0.0.1:8080:80": {"127.0.0.1", 8080, 80, "tcp"}, "127.0.0.1::80/sctp": {"127.0.0.1", 0, 80, "sctp"}, "[::1]:1:2": {"::1", 1, 2, "tcp"},
		"0:80": {"", 0, 80, "tcp"},
	} {
		if got, err := parsePort(text); err != nil || got != want {
			t.Errorf("%q: %+v %v", text, got, err)
		}
	}
	for _, text := range []string{"", ":", "0", "70000", "1:0", "70000:1", "a:1", "1:2:3", "x.y:1:2", "1/icmp", "::1:1:2", "-1:80", "1:2:3:4", "80-90"} {
		if got, err := parsePort(text); err == nil {
			t.Errorf("%q was read as %+v", text, got)
		}
	}
}

func TestParseVolume(t *testing.T) {
	for text, name := range map[string]string{"/a": "", "/a:/b": "", "/a:/b:ro": "", "data:/b": "data", "data.1:/b:rw,z": "data.1"} {
		if v, err := parseVolume(text); err != nil || v.name != name {
			t.Errorf("%q: %+v %v", text, v, err)
		}
	}
	for _, text := range []string{"", "a", "a:b", ":/b", "../x:/b", "-v:/b", "a:/b:c:d", "a b:/c", "/a\x00:/b", "./rel:/b"} {
		if v, err := parseVolume(text); err == nil {
			t.Errorf("%q was read as %+v", text, v)
		}
	}
}

func TestReplyForms(t *testing.T) {
	for name, tc := range map[string]struct {
		data    string
		id, ip  string
		running bool
	}{
		"nothing":         {``, "", "", true},
		"empty":           {`{}`, "", "", true},
		"null":            {`{"instanceHostMap":null}`, "", "", true},
		"plus":            {`{"instanceHostMap":{"instance":{"externalId":"x","+data":{"+fields":{"dockerIp":"1.2.3.4"}}}}}`, "x", "1.2.3.4", true},
		"plain":           {`{"instanceHostMap":{"instance":{"externalId":"x","data":{"fields":{"dockerIp":"1.2.3.4"}}}}}`, "x", "1.2.3.4", true},
		"exited":          {`{"instanceHostMap":{"instance":{"+data":{"dockerInspect":{"Id":"y","State":{"Running":false}}}}}}`, "y", "", false},
		"gone":            {`{"instanceHostMap":{"instance":{"externalId":"","+data":{"dockerInspect":null,"dockerContainer":null,"+fields":{"dockerHostIp":"","dockerPorts":null,"dockerIp":null}}}}}`, "", "", true},
		"inspect is zero": {`{"instanceHostMap":{"instance":{"externalId":"x","+data":{"dockerInspect":{"Config":null}}}}}`, "x", "", true},
	} {
		t.Run(name, func(t *testing.T) {
			in, err := parseInstance(&wire.Reply{Data: json.RawMessage(tc.data)}, "instanceHostMap")
			if err != nil {
				t.Fatal(err)
			}
			c := &store.Container{}
			in.merge(c)
			if c.ExternalID != tc.id || c.PrimaryIPAddress != tc.ip || in.running() != tc.running {
				t.Errorf("id %q ip %q running %v", c.ExternalID, c.PrimaryIPAddress, in.running())
			}
		})
	}
	for _, bad := range []string{`[]`, `{"instanceHostMap":[]}`, `{"instanceHostMap":{"instance":"x"}}`, `{"instanceHostMap":{"instance":{"externalId":5}}}`} {
		if _, err := parseInstance(&wire.Reply{Data: json.RawMessage(bad)}, "instanceHostMap"); err == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
}

func FuzzSpec(f *testing.F) {
	f.Add([]byte(wide))
	f.Add([]byte(`{"imageUuid":"a","dataVolumes":[":::"],"ports":["]:"]}`))
	f.Fuzz(func(t *testing.T, fields []byte) {
		s, err := parseSpec(fields)
		if err != nil {
			return
		}
		// What was accepted can be turned into each event, and the events are JSON.
		j := &job{spec: s, host: &store.Host{}, c: &store.Container{Fields: fields, ImageUUID: "docker:" + s.image()}}
		steps := append(createSteps(s, true), stepDeactivate, stepRemove)
		for i := range steps {
			w := newWork(opStart, steps, "")
			w.Step = i
			if ev := j.event(w); !json.Valid(ev.Data) || ev.Name == "" || ev.TimeoutMillis <= 0 {
				t.Fatalf("%s: %s", steps[i], ev.Data)
			}
		}
	})
}

func FuzzInstanceReply(f *testing.F) {
	f.Add([]byte(`{"instanceHostMap":{"instance":{"externalId":"x","+data":{"dockerInspect":{"Id":"y"},"+fields":{"dockerIp":"1"}}}}}`))
	f.Fuzz(func(_ *testing.T, data []byte) {
		r := &wire.Reply{Data: data}
		if in, err := parseInstance(r, "instanceHostMap"); err == nil {
			in.merge(&store.Container{})
		}
		pulled(r)
	})
}
