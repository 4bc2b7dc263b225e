package pods_test

import (
	"context"
	"fmt"
	goruntime "runtime"
	"testing"
	"time"

	"github.com/droverhq/drover/runtime"
	"github.com/droverhq/drover/runtime/fake"
	"github.com/droverhq/drover/runtime/pods"
)

const manyPods = 1000

// many returns an engine of 1,000 pods with 3 containers each, and the ids of one of them.
func many(t testing.TB) (*fake.Engine, []string) {
	t.Helper()
	e := engine(t)
	var ids []string
	for i := range manyPods {
		for j := range 3 {
			id := add(t, e, kube(fmt.Sprint("ns-", i%20), fmt.Sprint("pod-", i), fmt.Sprint("uid-", i), fmt.Sprint("c-", j)), func(s *runtime.ContainerSpec) {
				s.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "KUBERNETES_SERVICE_HOST=10.96.0.1", "APP_HOME=/opt/app"}
				s.Binds = []string{"/var/lib/kubelet/pods/x/volumes/a:/data", "/var/lib/kubelet/pods/x/etc-hosts:/etc/hosts"}
			})
			if i == 0 {
				ids = append(ids, id)
			}
		}
	}
	return e, ids
}

// heap is what is in use after a collection.
func heap() uint64 {
	var m goruntime.MemStats
	goruntime.GC()
	goruntime.GC()
	goruntime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestScale has bounds that a busy machine keeps; BenchmarkScale measures.
func TestScale(t *testing.T) {
	e, _ := many(t)
	before := heap()
	s := start(t, pods.Config{NoFacts: true}, e)
	if h := s.Health(); h.Pods != manyPods || h.Containers != 3*manyPods {
		t.Errorf("%+v", h)
	}
	if used := int64(heap()) - int64(before); used > 40<<20 {
		t.Errorf("the map takes %d bytes", used)
	}
	last := s.Health().LastRefresh
	s.Refresh()
	until(t, "it is refreshed", func() bool { return s.Health().LastRefresh.After(last) })
	if took := s.Health().Took; took > 5*time.Second {
		t.Errorf("a refresh takes %v", took)
	}
	began := time.Now()
	id := add(t, e, kube("ns-x", "new", "new", "app"))
	until(t, "the change is in the map", func() bool { _, err := s.GetContainerByCid(id); return err == nil })
	t.Logf("a change was seen after %v, a refresh took %v", time.Since(began), s.Health().Took)
}

func BenchmarkScale(b *testing.B) {
	e, _ := many(b)
	before := heap()
	s := start(b, pods.Config{NoFacts: true}, e)
	memory := float64(int64(heap())-int64(before)) / (1 << 20)
	b.Run("refresh", func(b *testing.B) {
		var sum time.Duration
		for b.Loop() {
			last := s.Health().LastRefresh
			s.Refresh()
			for !s.Health().LastRefresh.After(last) {
				time.Sleep(time.Millisecond)
			}
			sum += s.Health().Took
		}
		b.ReportMetric(float64(sum.Microseconds())/1000/float64(b.N), "ms/refresh")
		b.ReportMetric(memory, "MiB")
	})
	b.Run("change", func(b *testing.B) {
		var sum, worst time.Duration
		for i := 0; b.Loop(); i++ {
			began := time.Now()
			id := add(b, e, kube("ns-x", fmt.Sprint("new-", i), fmt.Sprint("new-", i), "app"))
			for {
				if _, err := s.GetContainerByCid(id); err == nil {
					break
				}
				time.Sleep(100 * time.Microsecond)
			}
			took := time.Since(began)
			sum, worst = sum+took, max(worst, took)
			if err := e.Remove(context.Background(), id, runtime.RemoveOptions{Force: true}); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(sum.Microseconds())/1000/float64(b.N), "ms/change")
		b.ReportMetric(float64(worst.Microseconds())/1000, "ms/worst")
	})
}
