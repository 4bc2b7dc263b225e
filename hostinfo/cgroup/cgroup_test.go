package cgroup

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"
	"testing/fstest"
)

const id = "3f1d5a7e9b0c2d4f6a8b0c1d3e5f7a9b0c2d4f6a8b0c1d3e5f7a9b0c2d4f6a8b"

// files makes a file system of "name: content".
func files(m map[string]string) fstest.MapFS {
	out := fstest.MapFS{}
	for name, text := range m {
		out[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return out
}

func under(dir string, m map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range m {
		out[dir+"/"+k] = v
	}
	return out
}

var v2files = map[string]string{
	"cpu.max": "50000 100000\n", "cpu.weight": "39\n", "cpuset.cpus.effective": "0-1\n", "cpuset.mems.effective": "0\n",
	"cpu.stat":     "usage_usec 3000\nuser_usec 2000\nsystem_usec 1000\nnr_periods 10\nnr_throttled 4\nthrottled_usec 700\n",
	"cpu.pressure": "some avg10=1.50 avg60=0.20 avg300=0.03 total=1234\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=9\n",
	"memory.max":   "67108864\n", "memory.low": "0\n", "memory.swap.max": "max\n", "memory.current": "20000000\n", "memory.peak": "30000000\n",
	"memory.swap.current": "4096\n", "memory.stat": "anon 1\nfile 2\ninactive_file 5000000\n",
	"memory.events": "low 0\nhigh 0\nmax 12\noom 2\noom_kill 1\n", "memory.pressure": "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
	"pids.max": "max\n", "pids.current": "3\n", "io.pressure": "some avg10=0.00 avg60=0.00 avg300=0.00 total=77\n",
}

const v2want = `{"version":2,"path":"/kubepods.slice/cri-containerd-` + id + `.scope",` +
	`"cpu":{"quota":50000000,"period":100000000,"weight":39,"cpus":"0-1","mems":"0","usage":3000000,"user":2000000,"system":1000000,` +
	`"periods":10,"throttledPeriods":4,"throttled":700000,` +
	`"pressure":{"some":{"avg10":1.5,"avg60":0.2,"avg300":0.03,"total":1234000},"full":{"avg10":0,"avg60":0,"avg300":0,"total":9000}}},` +
	`"memory":{"limit":67108864,"reservation":0,"usage":20000000,"workingSet":15000000,"peak":30000000,"swap":4096,"limitHits":12,"oomKills":1,` +
	`"pressure":{"some":{"avg10":0,"avg60":0,"avg300":0,"total":0}}},` +
	`"pids":{"current":3},"io":{"pressure":{"some":{"avg10":0,"avg60":0,"avg300":0,"total":77000}}}}`

func v1tree(cpu string) fstest.MapFS {
	all := map[string]string{}
	for dir, m := range map[string]map[string]string{
		cpu: {
			"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n", "cpu.shares": "1024\n",
			"cpu.stat": "nr_periods 5\nnr_throttled 1\nthrottled_time 999\n",
		},
		"cpuacct": {"cpuacct.usage": "123456789\n", "cpuacct.stat": "user 3\nsystem 4\n"},
		"cpuset":  {"cpuset.effective_cpus": "0\n", "cpuset.effective_mems": "0\n"},
		"memory": {
			"memory.limit_in_bytes": "67108864\n", "memory.soft_limit_in_bytes": "9223372036854771712\n",
			"memory.memsw.limit_in_bytes": "134217728\n", "memory.usage_in_bytes": "1000\n", "memory.max_usage_in_bytes": "2000\n",
			"memory.memsw.usage_in_bytes": "1500\n", "memory.stat": "inactive_file 7\ntotal_inactive_file 100\n", "memory.failcnt": "6\n",
			"memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
		},
		"pids": {"pids.max": "100\n", "pids.current": "2\n"},
	} {
		for k, v := range under(dir+"/docker/"+id, m) {
			all[k] = v
		}
	}
	return files(all)
}

const v1want = `{"version":1,"path":"/docker/` + id + `",` +
	`"cpu":{"period":100000000,"shares":1024,"cpus":"0","mems":"0","usage":123456789,"user":30000000,"system":40000000,` +
	`"periods":5,"throttledPeriods":1,"throttled":999},` +
	`"memory":{"limit":67108864,"swapLimit":134217728,"usage":1000,"workingSet":900,"peak":2000,"swap":500,"limitHits":6,"oomKills":2},` +
	`"pids":{"limit":100,"current":2},"io":{}}`

func TestFacts(t *testing.T) {
	v2 := files(under("kubepods.slice/cri-containerd-"+id+".scope", v2files))
	v2["cgroup.controllers"] = &fstest.MapFile{Data: []byte("cpu memory pids\n")}
	v2["other.slice/x/cpu.max"] = &fstest.MapFile{Data: []byte("1 1\n")}
	v1lines := ""
	for i, c := range []string{"name=systemd", "pids", "memory", "cpuset", "cpuacct", "cpu"} {
		v1lines += fmt.Sprintf("%d:%s:/docker/%s\n", i+1, c, id)
	}
	for name, c := range map[string]struct {
		tree  fstest.MapFS
		group string
		want  string
	}{
		"version 2":                      {v2, "0::/kubepods.slice/cri-containerd-" + id + ".scope\n", v2want},
		"version 2 in another namespace": {v2, "0::/../../cri-containerd-" + id + ".scope\n", v2want},
		"version 2 in its own":           {v2, "0::/\n", v2want},
		"version 1":                      {v1tree("cpu"), v1lines, v1want},
		"version 1 with two in one": {
			v1tree("cpu,cpuacct"), "1:cpu,cpuacct:/docker/" + id + "\n2:memory:/docker/" + id + "\n3:pids:/docker/" + id + "\n4:cpuset:/docker/" + id + "\n",
			strings.ReplaceAll(v1want, `"usage":123456789,"user":30000000,"system":40000000,`, `"usage":123456789,"user":30000000,"system":40000000,`),
		},
		"version 1 in another namespace": {v1tree("cpu"), strings.ReplaceAll(v1lines, "/docker/", "/../../"), v1want},
	} {
		f, err := Read(c.tree, files(map[string]string{"42/cgroup": c.group}), 42, id)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got, _ := json.Marshal(f); string(got) != c.want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, c.want)
		}
	}
}

func TestWhatIsNotThere(t *testing.T) {
	proc := files(map[string]string{"42/cgroup": "0::/gone\n", "43/cgroup": "nonsense\n::\n", "44/cgroup": "1:memory:/gone\n"})
	v2 := files(map[string]string{"cgroup.controllers": ""})
	for name, c := range map[string]struct {
		tree fstest.MapFS
		pid  int
		id   string
	}{
		"no process": {v2, 1, ""}, "no group": {v2, 42, ""}, "no group with the id": {v2, 42, id}, "nonsense": {fstest.MapFS{}, 43, id},
		"no group in version 1": {v1tree("cpu"), 44, "zz"}, "no tree": {fstest.MapFS{}, 44, id},
	} {
		if f, err := Read(c.tree, proc, c.pid, c.id); !errors.Is(err, ErrGone) {
			t.Errorf("%s: %+v, %v", name, f, err)
		}
	}
}

// TestStrangeFiles reads what no kernel writes: it is left out.
func TestStrangeFiles(t *testing.T) {
	m := map[string]string{}
	for name := range v2files {
		m[name] = "some avg10=x avg60 =\nfull\n-1\n18446744073709551616 99999999999999999999\n" + strings.Repeat("x", 1<<20)
	}
	tree := files(under("a", m))
	tree["cgroup.controllers"] = &fstest.MapFile{}
	f, err := Read(tree, files(map[string]string{"1/cgroup": "0::/a\n"}), 1, "")
	if err != nil || f.CPU.Quota != nil || f.Memory.Limit != nil || f.Pids.Current != nil {
		t.Errorf("%+v, %v", f, err)
	}
}

func TestThisMachine(t *testing.T) {
	f, err := Read(os.DirFS("/sys/fs/cgroup"), os.DirFS("/proc"), os.Getpid(), "")
	if err != nil {
		t.Fatal(err)
	}
	if f.Memory.Usage == nil || *f.Memory.Usage == 0 || f.CPU.Usage == nil {
		t.Errorf("%+v", f)
	}
}

func FuzzRead(f *testing.F) {
	f.Add("0::/a\n", "max 100000\n", "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n")
	f.Add("4:memory:/../x\n", "1", "a b")
	f.Fuzz(func(t *testing.T, group, a, b string) {
		tree := fstest.MapFS{"cgroup.controllers": {}}
		for name := range v2files {
			text := a
			if strings.Contains(name, "pressure") || strings.Contains(name, "stat") {
				text = b
			}
			tree["a/"+name] = &fstest.MapFile{Data: []byte(text)}
		}
		for _, tree := range []fs.FS{tree, v1tree("cpu")} {
			if facts, err := Read(tree, files(map[string]string{"1/cgroup": group}), 1, ""); err == nil {
				if _, err := json.Marshal(facts); err != nil {
					t.Error(err)
				}
			}
		}
	})
}
