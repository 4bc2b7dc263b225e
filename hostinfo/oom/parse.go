package oom

import (
	"strconv"
	"strings"
	"time"
)

// A Kill is a process that the kernel killed for want of memory.
type Kill struct {
	Time       time.Time // as the clock of the machine has it now
	Pid        int       // on the host
	Process    string    // the name of the program, at most 15 bytes
	Constraint string    // CONSTRAINT_MEMCG, CONSTRAINT_NONE ...; "" if the kernel does not tell
	Cgroup     string    // of the process; "" if the kernel does not tell
	Limit      string    // the cgroup whose limit it was; "" or "/" for the machine
}

// A record is one entry of the kernel's log.
type record struct {
	at   time.Duration // since boot
	text string
}

// parseRecord reads "priority,sequence,microseconds,flags;text" and leaves out the lines with properties that may follow.
// It reports false for what is not of the kernel: user programs may write to the log too.
func parseRecord(raw string) (record, bool) {
	head, text, ok := strings.Cut(raw, ";")
	if !ok {
		return record{}, false
	}
	fields := strings.Split(head, ",")
	if len(fields) < 3 {
		return record{}, false
	}
	priority, err := strconv.ParseUint(fields[0], 10, 32)
	if err != nil || priority>>3 != 0 { // the facility: 0 is the kernel
		return record{}, false
	}
	usec, err := strconv.ParseUint(fields[2], 10, 63)
	if err != nil || usec > uint64(maxUptime/time.Microsecond) {
		return record{}, false
	}
	text, _, _ = strings.Cut(text, "\n")
	return record{time.Duration(usec) * time.Microsecond, text}, true
}

const (
	maxUptime = 200 * 365 * 24 * time.Hour
	// together is how long the records of one kill may take.
	together = 30 * time.Second
)

// A Parser makes kills of records. Its zero value is ready; it is for one goroutine.
type Parser struct {
	open  bool          // a kill has begun
	began time.Duration // and when
	kill  Kill          // what is known of it
	told  int           // the process that was told of last in it
}

// Feed takes one record, as a read of /dev/kmsg gives it, and returns the kill that it completes, if it does. Time is left
// for the caller; at is the record's own, since boot.
func (p *Parser) Feed(raw string) (k Kill, at time.Duration, ok bool) {
	r, ok := parseRecord(raw)
	if !ok {
		return Kill{}, 0, false
	}
	if p.open && (r.at < p.began || r.at-p.began > together) {
		*p = Parser{}
	}
	switch {
	case strings.Contains(r.text, " invoked oom-killer: "):
		*p = Parser{open: true, began: r.at}
	case strings.HasPrefix(r.text, "oom-kill:"):
		// Since 5.0. The line may be cut off; then the next one tells the process.
		if !p.open {
			*p = Parser{open: true, began: r.at}
		}
		p.oneLine(r.text)
		if p.kill.Pid > 0 {
			p.told = p.kill.Pid
			return p.kill, r.at, true
		}
	case strings.HasPrefix(r.text, "Task in "):
		// Before 5.0.
		if rest, limit, found := strings.Cut(strings.TrimPrefix(r.text, "Task in "), " killed as a result of limit of "); found && p.open {
			p.kill.Cgroup, p.kill.Limit, p.kill.Constraint = rest, limit, "CONSTRAINT_MEMCG"
		}
	default:
		_, rest, found := strings.Cut(r.text, "Killed process ")
		if !found || !p.open {
			break
		}
		pid, name, good := process(rest)
		if !good || pid == p.told {
			break
		}
		// With memory.oom.group there are several of one group.
		p.kill.Pid, p.kill.Process, p.told = pid, name, pid
		return p.kill, r.at, true
	}
	return Kill{}, 0, false
}

// process reads "1234 (name) total-vm:...". A name may hold anything, brackets too.
func process(text string) (pid int, name string, ok bool) {
	number, rest, _ := strings.Cut(text, " ")
	pid, err := strconv.Atoi(strings.TrimSuffix(number, ","))
	if err != nil || pid <= 0 || !strings.HasPrefix(rest, "(") {
		return 0, "", false
	}
	end := strings.LastIndex(rest, ") total-vm:")
	if end < 0 {
		end = strings.LastIndex(rest, ")")
	}
	if end < 1 {
		return 0, "", false
	}
	return pid, rest[1:end], true
}

// oneLine reads constraint=..,nodemask=..,cpuset=..,mems_allowed=..[,oom_memcg=..|,global_oom],task_memcg=..,task=..,pid=..,
// uid=.. The names of programs and groups may hold commas, so that each value ends where the next known key begins.
func (p *Parser) oneLine(text string) {
	text = strings.TrimPrefix(text, "oom-kill:")
	if v, _, ok := strings.Cut(strings.TrimPrefix(text, "constraint="), ","); ok && strings.HasPrefix(text, "constraint=") {
		p.kill.Constraint = v
	}
	_, task, ok := strings.Cut(text, ",task_memcg=")
	if !ok {
		return
	}
	if _, limit, ok := strings.Cut(text, ",oom_memcg="); ok {
		p.kill.Limit, _, _ = strings.Cut(limit, ",task_memcg=")
	}
	group, rest, ok := strings.Cut(task, ",task=")
	p.kill.Cgroup = group
	if !ok {
		return
	}
	end := strings.LastIndex(rest, ",uid=")
	if end < 0 {
		return
	}
	at := strings.LastIndex(rest[:end], ",pid=")
	if at < 0 {
		return
	}
	if pid, err := strconv.Atoi(rest[at+len(",pid=") : end]); err == nil && pid > 0 {
		p.kill.Pid, p.kill.Process = pid, rest[:at]
	}
}
