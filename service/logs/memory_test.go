package logs

import goruntime "runtime"

// inUse returns the bytes of heap and stacks after a collection.
func inUse() int64 {
	goruntime.GC()
	goruntime.GC()
	var m goruntime.MemStats
	goruntime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}
