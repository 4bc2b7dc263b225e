package pods

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/droverhq/drover/runtime"
)

// host makes files below a directory: links are "-> target".
func host(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, ok := strings.CutPrefix(content, "-> "); ok {
			err = os.Symlink(target, path)
		} else {
			err = os.WriteFile(path, []byte(content), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// tzif is a zone file without transitions, of the rule.
func tzif(t testing.TB, hours int, name string) string {
	t.Helper()
	b := []byte("TZif2" + strings.Repeat("\x00", 15) + "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x04")
	secs := hours * 3600
	b = append(b, byte(secs>>24), byte(secs>>16), byte(secs>>8), byte(secs), 0, 0)
	b = append(b, name+"\x00"...)
	return string(append(append(b, b...), "\n"+name+strconv.Itoa(-hours)+"\n"...))
}

func TestTimezone(t *testing.T) {
	cst := tzif(t, 8, "CST")
	for name, c := range map[string]struct {
		env        string
		files      map[string]string
		want, zone string
		hours      int
		link       string
		unknown    bool
	}{
		"nothing":          {want: "UTC", zone: "UTC"},
		"link":             {files: map[string]string{"etc/localtime": "-> /usr/share/zoneinfo/Asia/Shanghai", "usr/share/zoneinfo/Asia/Shanghai": cst}, want: "Asia/Shanghai", zone: "CST", hours: 8, link: "/usr/share/zoneinfo/Asia/Shanghai"},
		"relative link":    {files: map[string]string{"etc/localtime": "-> ../usr/share/zoneinfo/Asia/Shanghai", "usr/share/zoneinfo/Asia/Shanghai": cst}, want: "Asia/Shanghai", zone: "CST", hours: 8, link: "../usr/share/zoneinfo/Asia/Shanghai"},
		"file":             {files: map[string]string{"etc/localtime": cst}, want: "UNKNOWN", zone: "CST", hours: 8},
		"no zone file":     {files: map[string]string{"etc/localtime": "hello"}, want: "UTC", zone: "UTC"},
		"name in TZ":       {env: "Asia/Tokyo", files: map[string]string{"usr/share/zoneinfo/Asia/Tokyo": tzif(t, 9, "JST"), "etc/localtime": cst}, want: "Asia/Tokyo", zone: "JST", hours: 9},
		"path in TZ":       {env: ":/usr/share/zoneinfo/Asia/Tokyo", files: map[string]string{"usr/share/zoneinfo/Asia/Tokyo": tzif(t, 9, "JST")}, want: "Asia/Tokyo", zone: "JST", hours: 9},
		"rule in TZ":       {env: "XYZ-5:30", want: "XYZ-5:30", zone: "XYZ", hours: 5},
		"UTC in TZ":        {env: "UTC", files: map[string]string{"etc/localtime": cst}, want: "UTC", zone: "UTC"},
		"our own is not":   {env: "Local", files: map[string]string{"etc/localtime": cst}, want: "UNKNOWN", zone: "CST", hours: 8},
		"a way out":        {env: "../../../etc/passwd", files: map[string]string{"etc/localtime": cst}, want: "UNKNOWN", zone: "CST", hours: 8},
		"link out":         {files: map[string]string{"etc/localtime": "-> ../../../../../../etc/hostname"}, want: "UTC", zone: "UTC", link: "../../../../../../etc/hostname"},
		"link in a circle": {files: map[string]string{"etc/localtime": "-> /etc/localtime"}, unknown: true, link: "/etc/localtime"},
	} {
		t.Run(name, func(t *testing.T) {
			ctr := &runtime.Container{Runtime: runtime.Runc, MergedDir: host(t, c.files), Env: map[string]string{"TZ": c.env}}
			tz := timezone(ctr)
			if c.unknown {
				if tz.TzObj != nil {
					t.Errorf("got %+v", tz)
				}
				return
			}
			if tz.Name != c.want || tz.Zone != c.zone || tz.Offset/3600 != c.hours || tz.TzObj == nil || tz.EtcLocaltime != c.link || tz.EnvTz != c.env {
				t.Errorf("got %+v", tz)
			}
		})
	}
}

func TestRule(t *testing.T) {
	loc := fromRule("CET-1CEST,M3.5.0,M10.5.0/3")
	if loc == nil {
		t.Fatal("the rule is not understood")
	}
	for month, want := range map[time.Month]string{time.January: "CET", time.July: "CEST"} {
		if name, _ := time.Date(2026, month, 1, 12, 0, 0, 0, time.UTC).In(loc).Zone(); name != want {
			t.Errorf("%s: %s, want %s", month, name, want)
		}
	}
	for _, text := range []string{"", "X", "CST", "CST-8\n", "A/B", "CST-8;rm", strings.Repeat("A", 1000)} {
		if fromRule(text) != nil {
			t.Errorf("%q is a rule", text)
		}
	}
}

func FuzzRule(f *testing.F) {
	f.Add("CET-1CEST,M3.5.0,M10.5.0/3")
	f.Add("<+03>-3")
	f.Fuzz(func(t *testing.T, text string) {
		if loc := fromRule(text); loc != nil {
			_, offset := time.Now().In(loc).Zone()
			if offset < -168*3600 || offset > 168*3600 {
				t.Errorf("%q is %d seconds off", text, offset)
			}
		}
	})
}

func TestAlpine(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  runtime.AlpineStatus
	}{
		"yes": {map[string]string{"etc/alpine-release": "3.20.0\n"}, runtime.AlpineStatusYes},
		"no":  {map[string]string{"etc/os-release": "x"}, runtime.AlpineStatusNo},
	} {
		if got := alpine(&runtime.Container{Runtime: runtime.Runc, MergedDir: host(t, c.files)}); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if got := alpine(&runtime.Container{Runtime: runtime.Runc, MergedDir: "/no/such/dir"}); got != runtime.AlpineStatusUnknown {
		t.Errorf("a root that is not visible: %v", got)
	}
}

func TestFirstProcess(t *testing.T) {
	proc := host(t, map[string]string{
		"10/cmdline": "/usr/bin/tini\x00--\x00app\x00", "10/task/10/children": "11 12 13 ", "10/task/14/children": "15",
		"11/stat": "11 (a) Z 10 1", "12/stat": "12 (evil) Z 1) S 10 1", "15/stat": "15 (b c) Z 10 1",
		"20/cmdline": "", "20/comm": "kernel\n",
	})
	if got := processName(proc, 10); got != "tini" {
		t.Errorf("name %q", got)
	}
	if got := processName(proc, 20); got != "kernel" {
		t.Errorf("name without a command line %q", got)
	}
	if got := countZombies(proc, 10); got != 2 { // 13 is gone meanwhile
		t.Errorf("%d zombies", got)
	}
	if got := countZombies(proc, 99); got != -1 {
		t.Errorf("%d zombies of nobody", got)
	}
	for _, c := range []struct {
		name, pidMode string
		zombies       int
		want          bool
	}{{"tini", "", 0, true}, {"tini", "", 2, false}, {"java", "", 0, false}, {"java", "host", 5, true}} {
		if got := reaps(&runtime.Container{PidMode: c.pidMode}, c.name, c.zombies); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}
