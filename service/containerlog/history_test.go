package containerlog

import (
	"strings"
	"testing"
	"time"
)

func TestHistoryIsDockerds(t *testing.T) {
	for name, c := range map[string]container{
		"json-file":     {script: everything},
		"json-file tty": {script: everything, tty: true},
		"json-file with attributes": {
			script: everything, opts: map[string]string{"tag": "{{.Name}}", "labels": "a", "env": "PATH"},
		},
		"local":     {script: short, driver: "local"},
		"local tty": {script: short, driver: "local", tty: true},
		"rotated":   {script: everything + everything, opts: map[string]string{"max-size": "150k", "max-file": "4"}},
		"rotated away": {
			script: everything + everything, opts: map[string]string{"max-size": "50k", "max-file": "2"},
		},
		"compressed": {
			script: everything + "sleep 1\n" + everything, opts: map[string]string{"max-size": "300k", "max-file": "4", "compress": "true"},
		},
		"one file": {script: everything + everything, opts: map[string]string{"max-size": "150k"}},
		"local rotated": {
			script: short + short + short + short, driver: "local", opts: map[string]string{"max-size": "20k", "max-file": "4", "compress": "false"},
		},
		"local compressed": {script: short + short + "sleep 1\n" + short + short, driver: "local", opts: map[string]string{"max-size": "30k", "max-file": "4"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := realDockerd(t)
			id := d.run(c)
			d.wait(id)
			time.Sleep(500 * time.Millisecond) // compression runs beside
			sameAsAPI(t, d, id, c.tty, strings.Contains(name, "compressed"))
		})
	}
}
