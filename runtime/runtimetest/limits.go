package runtimetest

import (
	"errors"
	"time"

	"github.com/droverhq/drover/runtime"
)

var limitTests = []test{
	{"Change", func(e *env) {
		l, ok := e.engine.(runtime.Limiter)
		if !ok {
			return
		}
		spec := e.spec()
		spec.Resources.Memory, spec.Resources.MemorySwap = 64<<20, 64<<20
		id := e.start(spec)
		pid := e.state(id).Pid
		memory := func(what string, want int64) {
			e.Helper()
			s, ok := e.engine.(runtime.Statser)
			if !ok {
				return
			}
			e.until(what, func() bool { // figures may be a moment old
				st, err := s.Stats(e.ctx, id)
				e.must("Stats", err)
				return st.MemoryLimit == uint64(want)
			})
		}
		memory("the limit of its making is there", 64<<20)
		n := func(v int64) *int64 { return &v }
		e.must("UpdateLimits", l.UpdateLimits(e.ctx, id, runtime.LimitsUpdate{Memory: n(48 << 20), MemorySwap: n(48 << 20)}))
		memory("the limit is changed", 48<<20)
		e.must("UpdateLimits of another", l.UpdateLimits(e.ctx, id, runtime.LimitsUpdate{CPUShares: n(512), CPUPeriod: n(100_000), CPUQuota: n(50_000)}))
		memory("what was not named stays", 48<<20)
		// All of what is asked for, or nothing.
		want := int64(32 << 20)
		err := l.UpdateLimits(e.ctx, id, runtime.LimitsUpdate{Memory: n(want), MemorySwap: n(want), PidsLimit: n(100)})
		if errors.Is(err, runtime.ErrUnsupported) {
			err, want = nil, 48<<20
			time.Sleep(200 * time.Millisecond) // a change that should not be would show by now
		}
		e.must("UpdateLimits of memory and processes", err)
		memory("both are changed, or neither", want)
		if st := e.state(id); !st.Running || st.Pid != pid {
			e.Errorf("the container did not run on: %+v", st)
		}
	}},
	{"Errors", func(e *env) {
		l, ok := e.engine.(runtime.Limiter)
		if !ok {
			return
		}
		id := e.start(e.spec())
		n := func(v int64) *int64 { return &v }
		text := func(v string) *string { return &v }
		for what, bad := range map[string]runtime.LimitsUpdate{
			"nothing to change": {}, "a memory of nothing": {Memory: n(0)}, "too little memory": {Memory: n(1 << 20)},
			"a negative share": {CPUShares: n(-1)}, "a period beyond the kernel's": {CPUPeriod: n(2_000_000)},
			"no processor": {CpusetCpus: text("")}, "a processor with a path": {CpusetCpus: text("../0")},
			"less with swap than without": {Memory: n(64 << 20), MemorySwap: n(32 << 20)},
		} {
			e.want(what, l.UpdateLimits(e.ctx, id, bad), runtime.ErrInvalid)
		}
		e.want("an unknown container", l.UpdateLimits(e.ctx, e.name(), runtime.LimitsUpdate{CPUShares: n(512)}), runtime.ErrNotFound)
	}},
}
