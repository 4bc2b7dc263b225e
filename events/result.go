package events

// A Result is what a [Handler] returns where the good final reply shall carry a message beside its data. The reply then
// says transitioning "no".
type Result struct {
	Data    any
	Message string // one line for people
}
