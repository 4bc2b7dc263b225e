package hostinfo

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const mib = 1 << 20

// usageOf answers for the mount points of the fixtures.
func usageOf(known map[string]Usage) func(string) (Usage, error) {
	return func(name string) (Usage, error) {
		u, ok := known[name]
		if !ok {
			return Usage{}, errors.New("no such mount: " + name)
		}
		return u, nil
	}
}

func fixture(name string, limits bool, known map[string]Usage) *Collector {
	return New(Config{
		Root: "/host", FS: os.DirFS(filepath.Join("testdata", name)), Limits: limits, Usage: usageOf(known),
		EngineRoot: func() string { return "/var/lib/docker" },
	})
}

func value(t *testing.T, name string, p *int64) int64 {
	t.Helper()
	if p == nil {
		t.Fatalf("%s is unknown", name)
	}
	return *p
}

func TestHostWithCgroupV2(t *testing.T) {
	c := fixture("v2", true, map[string]Usage{
		"/host/data disk":      {Total: 10 * mib, Used: mib, Free: 9 * mib},
		"/host/tank":           {Total: 7 * mib, Free: 7 * mib},
		"/host":                {Total: 100 * mib, Used: 40 * mib, Free: 50 * mib},
		"/host/var/lib/docker": {Total: 500 * mib, Free: 400 * mib, Used: 100 * mib},
		"/host/nfs":            {Total: 1, Free: 1},
		"/host/snap/core/1":    {Total: 1, Free: 1},
		"/host/run":            {Total: 1, Free: 1},
	})
	s := c.collect(true)
	if s.CPU.Count != 4 || s.CPU.ModelName != "Intel(R) Xeon(R) Processor @ 2.30GHz" || s.CPU.MHz != 2300.184 || s.CPU.Percentages != nil {
		t.Errorf("CPU is %+v", s.CPU)
	}
	if !slices.Equal(s.Load, []string{"0.00", "0.11", "1.25"}) {
		t.Errorf("load is %q", s.Load)
	}
	if s.Memory.Total != 3110400*1024 || value(t, "available", s.Memory.Available) != 2437734*1024 ||
		value(t, "swap cached", s.Memory.SwapCached) != 2048*1024 || value(t, "swap free", s.Memory.SwapFree) != 1631584*1024 {
		t.Errorf("memory is %+v", s.Memory)
	}
	if s.OS.Name != "Debian GNU/Linux 12 (bookworm)" || s.OS.KernelVersion(3) != "6.1.0" || s.OS.KernelVersion(2) != "6.1" || !s.KVM {
		t.Errorf("system is %+v, KVM %v", s.OS, s.KVM)
	}
	if len(s.Disk.Devices) != 3 || s.Disk.Devices["/dev/sda1"].Used != 40*mib || s.Disk.Devices["/dev/sdb1"].Total != 10*mib || s.Disk.Devices["tank/data"].Total != 7*mib {
		t.Errorf("disks are %+v", s.Disk.Devices)
	}
	if s.Disk.Storage == nil || s.Disk.Storage.Free != 400*mib {
		t.Errorf("storage is %+v", s.Disk.Storage)
	}
	if p := s.Disk.Devices["/dev/sda1"].Percentage(); p < 44.4 || p > 44.5 {
		t.Errorf("40 used and 50 free are %v %%", p)
	}
}

func TestHostWithCgroupV1HasNoLimits(t *testing.T) {
	s := fixture("v1", true, map[string]Usage{"/host": {Total: 8, Used: 4, Free: 4}}).collect(true)
	if s.CPU.Count != 4 || s.Memory.Total != 3110400*1024 || value(t, "free", s.Memory.Free) != 1140224*1024 {
		t.Errorf("CPU %+v, memory %+v", s.CPU, s.Memory)
	}
	if len(s.Disk.Devices) != 1 || s.Disk.Devices["/dev/vda"].Total != 8 || s.Disk.Storage.Free != 4 {
		t.Errorf("disk is %+v", s.Disk)
	}
	if s.OS.Name != "" || s.KVM {
		t.Errorf("the system has no name, but %+v %v", s.OS, s.KVM)
	}
}

func TestContainerAsHost(t *testing.T) {
	s := fixture("lxc", true, map[string]Usage{"/host": {Total: 8, Used: 4, Free: 4}}).collect(true)
	if s.CPU.Count != 2 { // 1.5 processors are two that may be busy
		t.Errorf("%d processors, want 2", s.CPU.Count)
	}
	if s.Memory.Total != 1<<30 || value(t, "free", s.Memory.Free) != 1<<30-500*mib {
		t.Errorf("memory is %+v", s.Memory)
	}
	if _, ok := s.Disk.Devices["rpool/data/subvol-100-disk-0"]; !ok {
		t.Errorf("disks are %v", s.Disk.Devices)
	}
	s = fixture("lxc", false, nil).collect(true)
	if s.CPU.Count != 4 || s.Memory.Total != 3110400*1024 {
		t.Error("limits were applied although they are not the host's")
	}
}

func TestHybridCgroups(t *testing.T) {
	s := fixture("hybrid", true, nil).collect(true)
	if s.CPU.Count != 2 || s.Memory.Total != 2<<30 || value(t, "free", s.Memory.Free) != 2<<30-700000000 {
		t.Errorf("CPU %+v, memory %d", s.CPU, s.Memory.Total)
	}
}

func TestBoardWithoutNames(t *testing.T) {
	s := fixture("arm", true, map[string]Usage{"/host": {Total: 8, Used: 4, Free: 4}}).collect(true)
	if s.CPU.Count != 2 || s.CPU.MHz != 1500 || s.CPU.ModelName != "BCM2711" {
		t.Errorf("CPU is %+v", s.CPU)
	}
	if s.Memory.Available != nil || s.Memory.Buffers != nil || s.Memory.SwapTotal != nil || value(t, "free", s.Memory.Free) != 512000*1024 {
		t.Errorf("memory is %+v", s.Memory)
	}
	if s.Load != nil || s.OS.Name != "Alpine Linux v3.20" || s.OS.KernelVersion(3) != "3.10.0" {
		t.Errorf("load %v, system %+v", s.Load, s.OS)
	}
}

// A host without anything readable has a sample in which everything is unknown.
func TestNothingReadable(t *testing.T) {
	s := New(Config{FS: os.DirFS(t.TempDir()), Usage: usageOf(nil)}).collect(true)
	if s.CPU != nil || s.Memory != nil || s.Load != nil || s.OS != (OS{}) {
		t.Errorf("sample is %+v", s)
	}
}

func TestPercentages(t *testing.T) {
	a := cpuTimes{names: []string{"cpu0", "cpu1"}, busy: map[string]uint64{"cpu0": 10, "cpu1": 10}, total: map[string]uint64{"cpu0": 100, "cpu1": 100}}
	b := cpuTimes{names: []string{"cpu0", "cpu1", "cpu2"}, busy: map[string]uint64{"cpu0": 35, "cpu1": 5, "cpu2": 9}, total: map[string]uint64{"cpu0": 200, "cpu1": 90, "cpu2": 10}}
	if p := a.percentages(b); !slices.Equal(p, []float64{25, 0, 0}) {
		t.Errorf("percentages are %v", p)
	}
	if p := (cpuTimes{}).percentages(b); p != nil {
		t.Errorf("without a first look there are none, but %v", p)
	}
}

func TestRunSamplesInTheBackground(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := fixture("v2", false, map[string]Usage{"/host": {Total: 1, Free: 1}})
		if s := c.Sample(); s == nil || s.CPU != nil {
			t.Fatalf("before Run the sample is %+v", s)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx) }()
		<-c.First()
		first := c.Sample()
		if first.CPU.Count != 4 || first.CPU.Percentages != nil {
			t.Errorf("first sample has %+v", first.CPU)
		}
		time.Sleep(firstGap)
		synctest.Wait()
		if p := c.Sample().CPU.Percentages; len(p) != 4 {
			t.Errorf("percentages are %v after the second sample", p)
		}
		second := c.Sample()
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if c.Sample() == second {
			t.Error("no third sample")
		}
		if c.Sample().OS.Name != first.OS.Name || !c.Sample().KVM {
			t.Error("what hardly changes was lost")
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
	})
}

func TestHostKeyIsMadeOnce(t *testing.T) {
	dir := t.TempDir()
	key := func() string {
		k, err := New(Config{StateDir: dir}).hostKey()
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	first := key()
	if second := key(); second != first {
		t.Error("the key changed")
	}
	block, _ := pem.Decode([]byte(first))
	if block == nil || block.Type != "RSA PUBLIC KEY" {
		t.Fatalf("key is %q", first)
	}
	if _, err := x509.ParsePKIXPublicKey(block.Bytes); err != nil {
		t.Error(err)
	}
	fi, err := os.Stat(filepath.Join(dir, "host.key"))
	if err != nil || fi.Mode().Perm() != 0o400 {
		t.Errorf("key file is %v, %v", fi.Mode(), err)
	}
	if files, _ := os.ReadDir(dir); len(files) != 1 {
		t.Errorf("%d files are left, want the key alone", len(files))
	}
	if err := os.Remove(filepath.Join(dir, "host.key")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "host.key"), []byte("<html>"), 0o400); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Config{StateDir: dir}).hostKey(); err == nil || !strings.Contains(err.Error(), "not PEM") {
		t.Errorf("a web page for a key: %v", err)
	}
}

func TestStateFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if io, err := readIOPS(dir); io != nil || err != nil {
		t.Errorf("without reports: %v, %v", io, err)
	}
	write("read.json", `{"jobs":[{"read":{"iops":1200.5},"write":{"iops":0}}],"disk_util":[{"name":"sda"}]}`)
	write("write.json", `{"jobs":[{"read":{"iops":0},"write":{"iops":300}}],"disk_util":[{"name":"sda"}]}`)
	if io, err := readIOPS(dir); err != nil || io["/dev/sda"] != (IOPS{Read: 1200.5, Write: 300}) {
		t.Errorf("IOPS are %v, %v", io, err)
	}
	write("write.json", `{"jobs":[]}`)
	if _, err := readIOPS(dir); err == nil {
		t.Error("a report without jobs is no error")
	}
	if l, err := readCloudLabels(dir); l != nil || err != nil {
		t.Errorf("without info.json: %v, %v", l, err)
	}
	write("info.json", `{"label":{"io.rancher.host.provider":"aws","io.rancher.host.region":"eu-west-1"}}`)
	if l, err := readCloudLabels(dir); err != nil || l["io.rancher.host.provider"] != "aws" {
		t.Errorf("labels are %v, %v", l, err)
	}
	write("info.json", `[]`)
	if _, err := readCloudLabels(dir); err == nil {
		t.Error("info.json of a wrong type is no error")
	}
}

func TestVersion(t *testing.T) {
	for _, c := range []struct {
		in   string
		n    int
		want string
	}{
		{"20.10.24+dfsg1", 2, "20.10"},
		{"6.18.44-fc-v657", 3, "6.18.44"},
		{"6.18.44-fc-v657", 9, "6.18.44"},
		{"5.15.0", 1, "5"},
		{"5-rc1", 2, "5"},
		{"4.", 2, "4"},
		{"", 2, ""},
		{"v1.2", 2, ""},
		{"1..2", 3, "1"},
	} {
		if got := Version(c.in, c.n); got != c.want {
			t.Errorf("Version(%q, %d) is %q, want %q", c.in, c.n, got, c.want)
		}
	}
}

// This machine has to be readable as it is.
func TestThisMachine(t *testing.T) {
	c := New(Config{})
	s := c.collect(true)
	if s.CPU == nil || s.CPU.Count < 1 || s.Memory == nil || s.Memory.Total < 1<<26 || len(s.Load) != 3 || s.OS.Kernel == "" {
		t.Errorf("sample is %+v", s)
	}
	if s.Disk == nil || s.Disk.Storage == nil || s.Disk.Storage.Total <= 0 {
		t.Errorf("disk is %+v", s.Disk)
	}
}

func FuzzParsers(f *testing.F) {
	f.Add("processor : 0\ncpu MHz : 1\n")
	f.Add("cpu0 1 2 3 4 5\nMemTotal: 5 kB\n")
	f.Add("/dev/sda1 /a\\040b ext4 rw 0 0\n")
	f.Add("0-3,8")
	f.Fuzz(func(t *testing.T, text string) {
		dir := t.TempDir()
		for _, name := range []string{"proc/cpuinfo", "proc/stat", "proc/loadavg", "proc/meminfo", "proc/mounts", "sys/fs/cgroup/memory.max", "sys/fs/cgroup/cpu.max", "sys/fs/cgroup/cpuset.cpus.effective", "etc/os-release"} {
			p := filepath.Join(dir, name)
			if os.MkdirAll(filepath.Dir(p), 0o700) != nil || os.WriteFile(p, []byte(text), 0o600) != nil {
				t.Fatal("cannot write the fixture")
			}
		}
		c := New(Config{FS: os.DirFS(dir), Limits: true, Usage: usageOf(nil)})
		s := c.collect(true)
		if s.CPU != nil && s.CPU.Count < 0 || s.Memory != nil && s.Memory.Total < 0 {
			t.Errorf("negative: %+v %+v", s.CPU, s.Memory)
		}
		_ = Version(text, 3)
	})
}

func BenchmarkSample(b *testing.B) {
	c := New(Config{})
	c.collect(true)
	for b.Loop() {
		c.last.Store(c.collect(false))
	}
}
