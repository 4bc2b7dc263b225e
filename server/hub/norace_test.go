//go:build !race

package hub_test

// raceDetector says that memory figures include the race detector's.
const raceDetector = false
