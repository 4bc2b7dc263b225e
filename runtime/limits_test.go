package runtime

import (
	"errors"
	"strings"
	"testing"
)

func TestParseLimits(t *testing.T) {
	l, err := ParseLimits([]byte(`{"memory":67108864,"memorySwap":-1,"cpuQuota":50000,"cpusetCpus":"0-1","pidsLimit":-1}`))
	if err != nil || *l.Memory != 64<<20 || *l.MemorySwap != -1 || *l.CPUQuota != 50000 || *l.CpusetCpus != "0-1" || l.CPUShares != nil {
		t.Fatalf("%s, %v", l, err)
	}
	for text, want := range map[string]string{
		`{}`:                   "nothing is to be changed",
		``:                     "EOF",
		`[]`:                   "array",
		`{"memory":"64m"}`:     "memory",
		`{"memory":1e99}`:      "memory",
		`{"memory":0}`:         "memory: 0",
		`{"memory":-1}`:        "memory: -1",
		`{"memory":1048576}`:   "memory: 1048576",
		`{"mem":1}`:            "mem",
		`{"cpuPeriod":5}`:      "cpuPeriod: 5",
		`{"cpuShares":1}`:      "cpuShares: 1",
		`{"pidsLimit":0}`:      "-1 for none",
		`{"cpusetCpus":"a"}`:   "cpusetCpus",
		`{"cpusetMems":""}`:    "cpusetMems",
		`{"cpuShares":1024} {`: "more after",
		`{"memory":67108864,"memorySwap":33554432}`: "memorySwap",
	} {
		if _, err := ParseLimits([]byte(text)); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

func FuzzParseLimits(f *testing.F) {
	f.Add([]byte(`{"memory":67108864}`))
	f.Add([]byte(`{"cpusetCpus":"0-1","pidsLimit":-1}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if l, err := ParseLimits(text); err == nil {
			if again, err := ParseLimits([]byte(l.String())); err != nil || again.String() != l.String() {
				t.Errorf("%s became %s, %v", text, again, err)
			}
		} else if !errors.Is(err, ErrInvalid) {
			t.Error(err)
		}
	})
}
