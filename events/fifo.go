package events

// fifo is a queue of plain values in one slice.
type fifo[T any] struct {
	items []T
	head  int
}

func (f *fifo[T]) push(v T) { f.items = append(f.items, v) }

func (f *fifo[T]) len() int { return len(f.items) - f.head }

// first returns the oldest value; there must be one.
func (f *fifo[T]) first() *T { return &f.items[f.head] }

func (f *fifo[T]) pop() T {
	v := f.items[f.head]
	var zero T
	f.items[f.head] = zero
	f.head++
	if f.head > len(f.items)/2 && f.head > 32 {
		f.items = append(f.items[:0:0], f.items[f.head:]...)
		f.head = 0
	}
	return v
}
