package runtime_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/droverhq/drover/runtime"
)

func TestModelConstants(t *testing.T) {
	if runtime.ContainerEngineFeatureCopy != 2 || runtime.HackRetryError != 4 || runtime.HackInit != 0 || runtime.DefaultSampleOutputLength != 1024 {
		t.Error("a constant of the shared model has another value")
	}
	for s, want := range map[runtime.AlpineStatus]string{0: "unknown", 1: "yes", 2: "no", 77: "unknown"} {
		if got, err := s.MarshalText(); err != nil || string(got) != want {
			t.Errorf("AlpineStatus(%d) is %s, %v", s, got, err)
		}
	}
	if got := runtime.NoPodError("ns1", "web").Error(); got != "no pod ns=[ns1] pod=[web]" {
		t.Errorf("NoPodError: %s", got)
	}
	if !errors.Is(runtime.NoPodError("a", "b"), runtime.ErrNotFound) || !errors.Is(runtime.ErrNoSuchContainer, runtime.ErrNotFound) {
		t.Error("what is missing is not ErrNotFound")
	}
	for id, want := range map[string]string{"": "", "abc": "abc", "0123456789ab": "0123456789ab", "0123456789abcdef": "0123456789ab"} {
		if got := runtime.ShortContainerId(id); got != want {
			t.Errorf("ShortContainerId(%q) = %q", id, got)
		}
	}
}

func TestPodLookups(t *testing.T) {
	a, b := &runtime.Container{K8sContainerName: "app", Id: "a"}, &runtime.Container{K8sContainerName: "app", Id: "b", State: runtime.ContainerState{Pid: 7, Status: "running"}}
	pod := &runtime.Pod{All: []*runtime.Container{a, b}}
	if _, err := pod.MainBizE(); !errors.Is(err, runtime.ErrNoBiz) {
		t.Errorf("no biz: %v", err)
	}
	pod.Biz = []*runtime.Container{b}
	if got, err := pod.MainBizE(); err != nil || got != b || pod.MainBiz() != b {
		t.Errorf("one biz: %v, %v", got, err)
	}
	pod.Biz = []*runtime.Container{a, b}
	if _, err := pod.MainBizE(); !errors.Is(err, runtime.ErrMultiBiz) || pod.MainBiz() != nil {
		t.Errorf("two biz: %v", err)
	}
	if got, err := pod.GetContainer("app"); err != nil || got != b {
		t.Errorf("the running one of two: %v, %v", got, err)
	}
	if _, err := pod.GetContainer("nope"); !errors.Is(err, runtime.ErrNoSuchContainer) {
		t.Errorf("a missing one: %v", err)
	}
	if out, err := json.Marshal(pod); err != nil || strings.Contains(string(out), `"All"`) {
		t.Errorf("JSON of a pod: %s, %v", out, err)
	}
}

func TestSampleOutputCutsBetweenCharacters(t *testing.T) {
	result := func(s string) runtime.ExecResult { return runtime.ExecResult{Stdout: bytes.NewBufferString(s)} }
	for _, c := range []struct {
		text string
		n    int
		want string
	}{
		{"hello", 3, "hel"},
		{"hello", 5, "hello"},
		{"hello", 9, "hello"},
		{"hello", 0, ""},
		{"hello", -1, ""},
		{"aé", 2, "a"},
		{"aé", 3, "aé"},
		{"日本", 4, "日"},
		{"日本", 5, "日"},
		{"日本", 3, "日"},
		{"日本", 2, ""},
		{"😀x", 3, ""},
		{"😀x", 4, "😀"},
		{"a\xff\xfeb", 2, "a\xff"},
		{"\x80\x80\x80\x80\x80\x80", 5, "\x80\x80\x80\x80\x80"},
	} {
		if got, _ := result(c.text).SampleOutputLength(c.n); got != c.want {
			t.Errorf("%q cut at %d: %q, want %q", c.text, c.n, got, c.want)
		}
	}
	if out, errOut := result(strings.Repeat("x", 5000)).SampleOutput(); len(out) != 1024 || errOut != "" {
		t.Errorf("the default sample has %d bytes, stderr %q", len(out), errOut)
	}
}

func TestHostPathThroughMounts(t *testing.T) {
	c := &runtime.Container{
		Runtime: runtime.Runc, MergedDir: "/merged", State: runtime.ContainerState{Pid: 1, Status: "running"},
		Mounts: []*runtime.MountPoint{
			{Source: "/very/long/source/of/data", Destination: "/data"}, {Source: "/s", Destination: "/data/sub"}, {Source: "/slash", Destination: "/trailing/"},
		},
	}
	for in, want := range map[string]string{
		"/etc/f": "/merged/etc/f", "/../../../etc/shadow": "/merged/etc/shadow", "/data/../etc/f": "/merged/etc/f",
		"/data": "/very/long/source/of/data", "/data/": "/very/long/source/of/data", "/data/x": "/very/long/source/of/data/x",
		"/database": "/merged/database", "/data/sub/f": "/s/f", "/data/sub": "/s", "/data/subway": "/very/long/source/of/data/subway",
		"/trailing/x": "/slash/x", "/": "/merged", "//": "/merged",
	} {
		for _, respect := range []bool{true, false} {
			if got, err := runtime.TransferToHostPathForContainer(c, in, respect); err != nil || got != want {
				t.Errorf("%s (links %v): %s, %v; want %s", in, respect, got, err, want)
			}
		}
	}
	whole := &runtime.Container{Runtime: runtime.Rund, Mounts: []*runtime.MountPoint{{Source: "/rootsource", Destination: "/"}, {Source: "/d", Destination: "/data"}}}
	for in, want := range map[string]string{"/etc/f": "/rootsource/etc/f", "/data/x": "/d/x", "/": "/rootsource"} {
		if got, err := runtime.TransferToHostPathForContainer(whole, in, false); err != nil || got != want {
			t.Errorf("mount at /: %s: %s, %v; want %s", in, got, err, want)
		}
	}
	alive := &runtime.Container{Runtime: runtime.Runc, HostFS: "/hostfs", State: runtime.ContainerState{Pid: 42, Status: "running"}}
	for in, want := range map[string]string{"/etc/f": "/hostfs/proc/42/root/etc/f", "/../../etc/f": "/hostfs/proc/42/root/etc/f"} {
		if got, err := runtime.TransferToHostPathForContainer(alive, in, true); err != nil || got != want {
			t.Errorf("by pid: %s: %s, %v; want %s", in, got, err, want)
		}
	}
	for _, in := range []string{"/", "//", "/a/..", "/../.."} {
		if got, err := runtime.TransferToHostPathForContainer(alive, in, true); err == nil {
			t.Errorf("%s by pid gives %s", in, got)
		}
	}
	for _, in := range []string{"", "etc/f", "../x", "/a\x00b"} {
		if got, err := runtime.TransferToHostPathForContainer(c, in, true); !errors.Is(err, runtime.ErrInvalid) {
			t.Errorf("%q: %s, %v", in, got, err)
		}
	}
	if _, err := runtime.TransferToHostPathForContainer(&runtime.Container{Runtime: runtime.Rund}, "/x", true); err == nil || err.Error() != "/x is not in any mount volume" {
		t.Errorf("no root known: %v", err)
	}
}

// TestHostPathAgreesWithTheKernel makes random trees of directories and links and asks a process that is really
// confined to them, by chroot, where each path leads. The answers must be the same, and never outside.
func TestHostPathAgreesWithTheKernel(t *testing.T) {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal("busybox-static is needed:", err)
	}
	rng := rand.New(rand.NewPCG(1, uint64(os.Getpid())))
	compared := 0
	for round := range 8 {
		root := t.TempDir()
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		data, err := os.ReadFile(busybox)
		must(err)
		must(os.WriteFile(filepath.Join(root, "busybox"), data, 0o755))
		dirs := []string{""}
		names := []string{"a", "b", "c", "d"}
		var paths []string
		for range 40 {
			dir := dirs[rng.IntN(len(dirs))]
			name := dir + "/" + names[rng.IntN(len(names))]
			full := root + name
			if _, err := os.Lstat(full); err == nil {
				continue
			}
			switch rng.IntN(3) {
			case 0:
				must(os.Mkdir(full, 0o755))
				dirs = append(dirs, name)
			case 1:
				must(os.WriteFile(full, nil, 0o644))
			default:
				var target strings.Builder
				if rng.IntN(2) == 0 {
					target.WriteString("/")
				}
				for range 1 + rng.IntN(4) {
					target.WriteString(append(names, "..", "..", ".")[rng.IntN(7)] + "/")
				}
				must(os.Symlink(strings.TrimSuffix(target.String(), "/"), full))
			}
		}
		for range 300 {
			var p strings.Builder
			for range 1 + rng.IntN(6) {
				p.WriteString("/" + append(names, "..", ".")[rng.IntN(6)])
			}
			paths = append(paths, p.String())
		}
		cmd := exec.Command("chroot", root, "/busybox", "sh", "-c",
			`while read -r p; do if [ -e "$p" ]; then /busybox readlink -f "$p"; else echo MISSING; fi; done`)
		cmd.Stdin = strings.NewReader(strings.Join(paths, "\n") + "\n")
		out, err := cmd.Output()
		must(err)
		answers := strings.Split(strings.TrimSpace(string(out)), "\n")
		if len(answers) != len(paths) {
			t.Fatalf("%d answers to %d paths", len(answers), len(paths))
		}
		c := &runtime.Container{Runtime: runtime.Runc, MergedDir: root}
		for i, p := range paths {
			got, err := runtime.TransferToHostPathForContainer(c, p, true)
			if err == nil && got != root && !strings.HasPrefix(got, root+"/") {
				t.Fatalf("round %d: %s leads out, to %s", round, p, got)
			}
			if answers[i] == "MISSING" {
				continue
			}
			compared++
			if want := strings.TrimSuffix(root+answers[i], "/"); err != nil || got != want {
				t.Errorf("round %d: %s: %s, %v; the kernel says %s", round, p, got, err, want)
			}
		}
	}
	if compared < 100 {
		t.Errorf("only %d paths were there to compare", compared)
	}
}

func TestHostPathLinkLimit(t *testing.T) {
	root := t.TempDir()
	for i := range 60 {
		if err := os.Symlink(fmt.Sprintf("l%d", i+1), filepath.Join(root, fmt.Sprintf("l%d", i))); err != nil {
			t.Fatal(err)
		}
	}
	c := &runtime.Container{Runtime: runtime.Runc, MergedDir: root}
	if _, err := runtime.TransferToHostPathForContainer(c, "/l0", true); err == nil || err.Error() != "too many symbol links" {
		t.Errorf("60 links in a row: %v", err)
	}
	if got, err := runtime.TransferToHostPathForContainer(c, "/l50", true); err != nil || got != root+"/l60" {
		t.Errorf("10 links in a row: %s, %v", got, err)
	}
	if got, err := runtime.TransferToHostPathForContainer(c, "/l0", false); err != nil || got != root+"/l0" {
		t.Errorf("a last link that is not followed: %s, %v", got, err)
	}
}
