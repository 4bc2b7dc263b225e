package logs

import (
	"archive/zip"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// podTable is a pod map that a test writes down.
type podTable []Pod

func (t podTable) Pods() []Pod { return t }

func (t podTable) Named(name string) (found []Pod) {
	for _, p := range t {
		if p.Name == name {
			found = append(found, p)
		}
	}
	return found
}

// podTree makes the log folders of an engine below dir/pods and of another one below dir/engine/containers.
func podTree(t *testing.T) (dir string, pods podTable) {
	t.Helper()
	dir = t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		appendTo(t, name, text)
		return name
	}
	link := func(target, name string) string {
		t.Helper()
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, name); err != nil {
			t.Fatal(err)
		}
		return name
	}
	write("logs/own.log", "a file of the node\n")
	write("pods/prod_web-0_u1/app/0.log", "first life\n")
	app := write("pods/prod_web-0_u1/app/1.log", "one\ntwo error\n")
	side := write("pods/prod_web-0_u1/side/0.log", "side\n")
	db := write("pods/prod_db-0_u2/db/0.log", "db prod\n")
	write("pods/prod_db-0_u2/db/0.log.20260101-000000", "db older\n")
	test := write("pods/test_db-0_u3/db/0.log", "db test\n")
	docker := write("engine/containers/abc/abc-json.log", "docker\n")
	write("engine/containers/abc/config.v2.json", "SECRET=1\n")
	write("engine/containers/other/other-json.log", "of another container\n")
	linked := link(docker, "pods/prod_linked_u4/app/0.log")
	stolen := link(filepath.Join(dir, "engine/containers/other/other-json.log"), "pods/prod_stolen_u5/app/0.log")
	neighbour := link("../prod_web-0_u1", "pods/prod_neighbour_u6")
	write("pods/prod_mixed_u7/app/0.log", "mixed\n")
	link("/etc/hosts", "pods/prod_mixed_u7/app/hosts.log")
	link("0.log", "pods/prod_mixed_u7/app/same.log")
	one := func(name, namespace string, containers ...PodContainer) Pod {
		return Pod{Namespace: namespace, Name: name, Created: time.Now(), Containers: containers}
	}
	return dir, podTable{
		one("web-0", "prod", PodContainer{"app", "i1", app}, PodContainer{"side", "i2", side}),
		one("db-0", "prod", PodContainer{"db", "i3", db}), one("db-0", "test", PodContainer{"db", "i4", test}),
		one("docker", "prod", PodContainer{"app", "abc", docker}), one("linked", "prod", PodContainer{"app", "abc", linked}),
		one("stolen", "prod", PodContainer{"app", "abc", stolen}),
		one("neighbour", "prod", PodContainer{"app", "i6", filepath.Join(neighbour, "app/1.log")}),
		one("mixed", "prod", PodContainer{"app", "i7", filepath.Join(dir, "pods/prod_mixed_u7/app/0.log")}),
		one("broken", "prod", PodContainer{"app", "i8", "/etc/0.log"}), one("empty", "prod"),
	}
}

func TestLogsOfPodsByName(t *testing.T) {
	dir, pods := podTree(t)
	s := newService(t, Config{Roots: []string{filepath.Join(dir, "logs")}, Pods: pods})
	for _, c := range []struct{ line, out, said string }{
		{"cat pod:web-0/app/1.log", "one\ntwo error\n", ""},
		{"cat pod:web-0/app", "one\ntwo error\n", ""},
		{"cat pod:web-0/side/", "side\n", ""},
		{"cat pod:web-0/app/0.log", "first life\n", ""},
		{"tail -n 1 pod:prod:web-0/app | grep -c error", "1\n", ""},
		{"cat pod:web-0/app/*.log", "first life\none\ntwo error\n", ""},
		{"cat pod:web-0/*/1.log", "one\ntwo error\n", ""},
		{"grep -h db pod:prod:db-0/db/*", "db prod\ndb older\n", ""},
		{"cat pod:test:db-0", "db test\n", ""},
		{"cat pod:docker", "docker\n", ""},
		{"cat pod:docker/abc-json.log", "docker\n", ""},
		{"cat pod:linked", "docker\n", ""},
		{"cat pod:mixed/same.log", "mixed\n", ""},
		{"ls pod:", "broken\ndocker\nempty\nlinked\nmixed\nneighbour\nprod:db-0\nstolen\ntest:db-0\nweb-0\n", ""},
		{"ls pod:web-0", "app\nside\n", ""},
		{"ls pod:web-0/app", "0.log\n1.log\n", ""},
		{"ls pod:docker/app", "abc-json.log\n", ""}, // and not its configuration
		{"ls -a pod:empty", ".\n..\n", ""},

		{"cat pod:web-0", "", "2 containers: name one"},
		{"cat pod:db-0", "", "2 namespaces have a pod db-0: write pod:prod:db-0"},
		{"cat pod:gone/app", "", "no pod gone on this node"},
		{"cat pod:web-0/gone", "", "has no container gone"},
		{"cat pod:", "", "Is a directory"},
		{"cat pod:empty", "", "0 containers"},
		{"cat pod:docker/app/config.v2.json", "", "no log file of the container"},
		{"cat pod:docker/config.v2.json", "", "no log file of the container"},
		{"cat pod:stolen", "", "outside"},
		{"cat pod:neighbour", "", "outside"},
		{"cat pod:mixed/app/hosts.log", "", "outside"},
		{"cat pod:broken", "", "outside"},
		{"cat pod:web-0/../../own.log", "", "component"},
		{"cat pod:web-0/app/../side/0.log", "", "component"},
		{"cat pod:web-0/app//0.log", "", "component"},
		{"cat pod:web-*/app/0.log", "", "without a pattern"},
		{"cat pod:web-0/app/0.log/x.log", "", "no log file"},
		{"echo x >> pod:web-0/app", "", "app.logs.stdin-roots"},
	} {
		got, _, err := runLine(t, s, c.line)
		said := got.said()
		if err != nil {
			said += err.Error()
		}
		if got.text() != c.out || !strings.Contains(said, c.said) || c.said == "" && said != "" {
			t.Errorf("%s: %q, said %q; want %q, %q", c.line, got.text(), said, c.out, c.said)
		}
	}
}

// restarting is a pod map that changes.
type restarting struct{ now chan Pod }

func (r restarting) Pods() []Pod { p := <-r.now; r.now <- p; return []Pod{p} }

func (r restarting) Named(string) []Pod { return r.Pods() }

func TestFollowGoesOnAfterARestartOfTheContainer(t *testing.T) {
	dir, _ := podTree(t)
	app := filepath.Join(dir, "pods/prod_web-0_u1/app")
	now := restarting{make(chan Pod, 1)}
	now.now <- Pod{Namespace: "prod", Name: "web-0", Containers: []PodContainer{{"app", "i1", filepath.Join(app, "1.log")}}}
	s := newService(t, Config{Roots: []string{filepath.Join(dir, "logs")}, Pods: now})
	got, _ := startFollow(t, s, "tail -n +1 -F pod:web-0/app")
	eventually(t, "the log so far", func() bool { return got.text() == "one\ntwo error\n" })
	appendTo(t, filepath.Join(app, "1.log"), "last words\n")
	appendTo(t, filepath.Join(app, "2.log"), "second life\n")
	<-now.now
	now.now <- Pod{Namespace: "prod", Name: "web-0", Containers: []PodContainer{{"app", "i9", filepath.Join(app, "2.log")}}}
	eventually(t, "the end of the old log and the new one", func() bool { return got.text() == "one\ntwo error\nlast words\nsecond life\n" })
	if said := got.said(); !strings.Contains(said, noteReplaced) {
		t.Errorf("the follow said %q", said)
	}
}

func TestPodsOverREST(t *testing.T) {
	dir, pods := podTree(t)
	door := newTestDoor(t, Config{Roots: []string{filepath.Join(dir, "logs")}, Pods: pods}, nil)
	for path, want := range map[string]string{
		"/files/pod:web-0/":             `"name":"side"`,
		"/files/pod:web-0/app":          `"name":"1.log"`,
		"/files/pod:":                   `"path":"pod:test:db-0"`,
		"/files/":                       `"path":"pod:"`,
		"/download/pod:web-0/app/1.log": "one\ntwo error\n",
		"/download/pod:web-0/app":       "one\ntwo error\n",
		"/download/pod:gone/app":        "no pod gone on this node",
	} {
		if _, body := get(t, door.URL+path); !strings.Contains(string(body), want) {
			t.Errorf("%s: %s", path, body)
		}
	}
	_, body := get(t, door.URL+"/download/?path=pod:web-0/app/*.log")
	z, err := zip.NewReader(bytes.NewReader(body), int64(len(body)))
	if err != nil || len(z.File) != 2 || z.File[1].Name != "pod/web-0/app/1.log" {
		t.Errorf("the archive: %v, %+v", err, z)
	}
}
