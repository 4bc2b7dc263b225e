package service

import (
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/service/containerlog"
)

// query reads the parameters of a request and remembers the first that is wrong.
type query struct {
	url.Values
	err error
}

func queryOf(r *http.Request) *query {
	values, err := url.ParseQuery(r.URL.RawQuery)
	q := &query{Values: values}
	if err != nil {
		q.err = invalid("the query cannot be parsed: %v", err)
	}
	return q
}

func (q *query) fail(name, want string) {
	if q.err == nil {
		q.err = invalid("parameter %s=%.60q: want %s", name, q.Get(name), want)
	}
}

// flag is true for "1" and "true" under any of the names, and for a name alone.
func (q *query) flag(names ...string) bool {
	for _, name := range names {
		if !q.Has(name) {
			continue
		}
		switch strings.ToLower(q.Get(name)) {
		case "1", "true", "yes", "on", "":
			return true
		case "0", "false", "no", "off":
		default:
			q.fail(name, "true or false")
		}
	}
	return false
}

// given reports whether one of the names is there.
func (q *query) given(names ...string) bool {
	for _, name := range names {
		if q.Has(name) {
			return true
		}
	}
	return false
}

func (q *query) text(names ...string) string {
	for _, name := range names {
		if v := q.Get(name); v != "" {
			return v
		}
	}
	return ""
}

// number returns the value of a parameter, or def if it is not there.
func (q *query) number(name string, def, low, high int) int {
	v := q.Get(name)
	if v == "" {
		return def
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < low || n > high {
		q.fail(name, "a number from "+strconv.Itoa(low)+" to "+strconv.Itoa(high))
		return def
	}
	return n
}

// duration reads "90s", "1h30m", or seconds.
func (q *query) duration(name string, def, low, high time.Duration) time.Duration {
	v := q.Get(name)
	if v == "" {
		return def
	}
	d, err := time.ParseDuration(v)
	if err != nil {
		var seconds float64
		if seconds, err = strconv.ParseFloat(v, 64); err == nil {
			d = time.Duration(seconds * float64(time.Second))
		}
	}
	if err != nil || d < low || d > high {
		q.fail(name, "a duration from "+low.String()+" to "+high.String())
		return def
	}
	return d
}

// when reads a time as the logs do.
func (q *query) when(name string) time.Time {
	t, err := containerlog.ParseTime(q.Get(name))
	if err != nil {
		q.fail(name, "a time (2026-11-20T13:51:00Z), seconds since 1970, or how long ago (10m)")
	}
	return t
}

// streams reads which streams a viewer wants. The kubelet's names and those of the Kubernetes API are both good; whoever
// names none gets the output.
func (q *query) streams() (in, out, errOut, tty bool) {
	in = q.flag("input", "stdin")
	out = q.flag("output", "stdout")
	errOut = q.flag("error", "stderr")
	tty = q.flag("tty")
	if !q.given("input", "stdin", "output", "stdout", "error", "stderr") {
		out, errOut = true, true
	}
	if q.err == nil && !in && !out && !errOut {
		q.err = invalid("at least one of input, output and error is needed")
	}
	return in, out, errOut && !tty, tty
}

// execSpec reads what to run.
func (q *query) execSpec(tty bool) runtime.ExecSpec {
	spec := runtime.ExecSpec{
		Cmd:        q.Values["command"],
		Env:        q.Values["env"],
		User:       q.text("user"),
		WorkingDir: q.text("workDir", "workdir", "workingDir"),
		TTY:        tty,
		Privileged: q.flag("privileged"),
		Keep:       q.flag("keep"),
	}
	if q.err == nil && (len(spec.Cmd) == 0 || spec.Cmd[0] == "") {
		q.err = invalid("no command: give the parameter command, once for each word")
	}
	for _, e := range spec.Env {
		if name, _, ok := strings.Cut(e, "="); q.err == nil && (!ok || name == "") {
			q.err = invalid("parameter env=%.60q: want NAME=VALUE", e)
		}
	}
	cols, rows := q.number("cols", 0, 0, math.MaxUint16), q.number("rows", 0, 0, math.MaxUint16)
	if tty && cols > 0 && rows > 0 {
		spec.Size = &runtime.TerminalSize{Width: uint16(cols), Height: uint16(rows)}
	}
	spec.Grace = q.duration("grace", 0, 0, time.Minute)
	return spec
}
