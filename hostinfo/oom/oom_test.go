package oom

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	id  = "3f1d5a7e9b0c2d4f6a8b0c1d3e5f7a9b0c2d4f6a8b0c1d3e5f7a9b0c2d4f6a8b"
	pod = "/kubepods/burstable/pod0d8a3c5e-1111-2222-3333-444455556666/" + id
)

// feed gives a log to a parser and returns the kills.
func feed(log string) (kills []Kill) {
	var p Parser
	for line := range strings.Lines(log) {
		if k, at, ok := p.Feed(strings.TrimSuffix(line, "\n")); ok {
			k.Time = time.Unix(0, 0).Add(at)
			kills = append(kills, k)
		}
	}
	return kills
}

func TestParser(t *testing.T) {
	at := func(usec int64) time.Time { return time.Unix(0, usec*1000) }
	for name, c := range map[string]struct {
		log  string
		want []Kill
	}{
		"since 5.0": {
			`4,800,1000,-;stress invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=999
4,801,1010,-;CPU: 1 PID: 4242 Comm: stress Not tainted 6.1.0-18-amd64 #1
6,802,1020,-;memory: usage 65536kB, limit 65536kB, failcnt 31
6,803,1030,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=cri-containerd-x.scope,mems_allowed=0,oom_memcg=/kubepods/burstable/pod0d8a3c5e-1111-2222-3333-444455556666,task_memcg=` + pod + `,task=stress,pid=4242,uid=1000
3,804,1040,-;Memory cgroup out of memory: Killed process 4242 (stress) total-vm:100000kB, anon-rss:60000kB, file-rss:0kB, shmem-rss:0kB, UID:1000 pgtables:180kB oom_score_adj:999
6,805,1050,-;oom_reaper: reaped process 4242 (stress), now anon-rss:0kB, file-rss:0kB, shmem-rss:0kB
`,
			[]Kill{{at(1030), 4242, "stress", "CONSTRAINT_MEMCG", pod, "/kubepods/burstable/pod0d8a3c5e-1111-2222-3333-444455556666"}},
		},
		"before 5.0": {
			`4,900,2000,-;java invoked oom-killer: gfp_mask=0x14000c0(GFP_KERNEL), nodemask=(null),  order=0, oom_score_adj=0
6,901,2010,-;java cpuset=` + id + ` mems_allowed=0
6,902,2020,-;Task in ` + pod + ` killed as a result of limit of ` + pod + `
6,903,2030,-;memory: usage 524288kB, limit 524288kB, failcnt 10
3,904,2040,-;Memory cgroup out of memory: Kill process 777 (java) score 1901 or sacrifice child
3,905,2050,-;Killed process 777 (java) total-vm:4000000kB, anon-rss:500000kB, file-rss:0kB, shmem-rss:0kB
`,
			[]Kill{{at(2050), 777, "java", "CONSTRAINT_MEMCG", pod, pod}},
		},
		"the machine": {
			`4,1,10,-;sh invoked oom-killer: gfp_mask=0x1, order=0, oom_score_adj=0
6,2,20,-;oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg=/docker/` + id + `,task=mysqld,pid=99,uid=999
3,3,30,-;Out of memory: Killed process 99 (mysqld) total-vm:1kB, anon-rss:1kB
`,
			[]Kill{{at(20), 99, "mysqld", "CONSTRAINT_NONE", "/docker/" + id, ""}},
		},
		"a whole group": {
			`4,1,10,-;a invoked oom-killer: gfp_mask=0x1, order=0, oom_score_adj=0
6,2,20,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/g,task_memcg=/g,task=a,pid=11,uid=0
3,3,30,-;Memory cgroup out of memory: Killed process 11 (a) total-vm:1kB
6,4,40,-;Tasks in /g are going to be killed due to memory.oom.group set
3,5,50,-;Memory cgroup out of memory: Killed process 11 (a) total-vm:1kB
3,6,60,-;Memory cgroup out of memory: Killed process 12 (b) total-vm:1kB
`,
			[]Kill{{at(20), 11, "a", "CONSTRAINT_MEMCG", "/g", "/g"}, {at(60), 12, "b", "CONSTRAINT_MEMCG", "/g", "/g"}},
		},
		"names that would mislead": {
			`4,1,10,-;x invoked oom-killer: gfp_mask=0x1, order=0, oom_score_adj=0
6,2,20,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/g,task_memcg=/g/h,task=a,pid=1,uid=0,pid=55,uid=0
4,3,30,-;y invoked oom-killer: gfp_mask=0x1, order=0, oom_score_adj=0
6,4,40,-;Task in /g killed as a result of limit of /g
3,5,50,-;Killed process 56 (a) total-vm (b)) total-vm:1kB, anon-rss:1kB
`,
			[]Kill{{at(20), 55, "a,pid=1,uid=0", "CONSTRAINT_MEMCG", "/g/h", "/g"}, {at(50), 56, "a) total-vm (b)", "CONSTRAINT_MEMCG", "/g", "/g"}},
		},
		"a line that was cut off": {
			`4,1,10,-;x invoked oom-killer: gfp_mask=0x1, order=0, oom_score_adj=0
6,2,20,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/g,task_memcg=/g/h,task=ab
3,3,30,-;Memory cgroup out of memory: Killed process 57 (abc) total-vm:1kB
`,
			[]Kill{{at(30), 57, "abc", "CONSTRAINT_MEMCG", "/g/h", "/g"}},
		},
		"user programs": {
			`12,1,10,-;x invoked oom-killer: gfp_mask=0x1, order=0, oom_score_adj=0
12,2,20,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/g,task_memcg=/g,task=a,pid=11,uid=0
11,3,30,-;Memory cgroup out of memory: Killed process 57 (abc) total-vm:1kB
`, nil,
		},
		"another kill's end": {
			`3,3,30,-;Killed process 57 (abc) total-vm:1kB
4,1,40,-;x invoked oom-killer: gfp_mask=0x1, order=0, oom_score_adj=0
3,5,50000000,-;Killed process 58 (abc) total-vm:1kB
`, nil,
		},
		"nonsense": {";\n4;\n4,1;x\n4,x,y,-;x invoked oom-killer: \n99999999999,1,1,-;oom-kill:\n4,1,99999999999999999999,-;oom-kill:\n4,1,1,-;oom-kill:\n4,1,1,-;Killed process -1 (\n4,1,1,-;Killed process 1 (\n", nil},
	} {
		got := feed(c.log)
		if len(got) != len(c.want) {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
			continue
		}
		for i := range got {
			if !got[i].Time.Equal(c.want[i].Time) {
				t.Errorf("%s: at %s, want %s", name, got[i].Time, c.want[i].Time)
			}
			got[i].Time = c.want[i].Time
			if got[i] != c.want[i] {
				t.Errorf("%s: %+v, want %+v", name, got[i], c.want[i])
			}
		}
	}
}

func FuzzParser(f *testing.F) {
	f.Add("4,1,10,-;x invoked oom-killer: a\n", "6,2,20,-;oom-kill:constraint=C,oom_memcg=/g,task_memcg=/g,task=a,pid=11,uid=0", "3,3,30,-;Killed process 12 (b) total-vm:1kB")
	f.Add("4,1,10,-;x invoked oom-killer: a", "6,2,20,-;Task in /a killed as a result of limit of /b", "3,3,30,-;Killed process 777 (java) total-vm:4kB")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		var p Parser
		for _, raw := range []string{a, b, c} {
			if k, at, ok := p.Feed(raw); ok && (k.Pid <= 0 || at < 0) {
				t.Errorf("%q: %+v at %s", raw, k, at)
			}
		}
	})
}

func TestWatchEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Watch(ctx, "/dev/kmsg", func(Kill) {}) }()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := Watch(t.Context(), filepath.Join(t.TempDir(), "none"), func(Kill) {}); !os.IsNotExist(unwrap(err)) {
		t.Errorf("a log that is not there: %v", err)
	}
}

func unwrap(err error) error {
	if u, ok := err.(interface{ Unwrap() error }); ok { //nolint:errorlint // one step
		return u.Unwrap()
	}
	return err
}
