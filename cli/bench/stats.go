package bench

import (
	"math"
	"slices"
	"time"
)

// A Series is the samples of one side in one round.
type Series struct {
	Latencies []time.Duration
	Elapsed   time.Duration // wall time of the whole round
}

// Rate returns operations a second.
func (s Series) Rate() float64 {
	if s.Elapsed <= 0 {
		return 0
	}
	return float64(len(s.Latencies)) / s.Elapsed.Seconds()
}

// Quantile returns the q-th quantile (0 to 1) of the latencies, 0 where there are none.
func (s Series) Quantile(q float64) time.Duration {
	if len(s.Latencies) == 0 {
		return 0
	}
	sorted := slices.Clone(s.Latencies)
	slices.Sort(sorted)
	i := int(math.Ceil(q*float64(len(sorted)))) - 1
	return sorted[min(max(i, 0), len(sorted)-1)]
}

// median returns the middle of values, the mean of the two middle ones for an even number, and NaN for none.
func median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Clone(values)
	slices.Sort(sorted)
	mid := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[mid]
	}
	return (sorted[mid-1] + sorted[mid]) / 2
}

// each maps rounds to one figure a round.
func each(rounds []Series, f func(Series) float64) []float64 {
	out := make([]float64, len(rounds))
	for i, r := range rounds {
		out[i] = f(r)
	}
	return out
}

func p50ms(s Series) float64 { return float64(s.Quantile(0.5)) / 1e6 }
func p99ms(s Series) float64 { return float64(s.Quantile(0.99)) / 1e6 }

// ratio returns the median of a's figures over the median of b's.
func ratio(a, b []Series, f func(Series) float64) float64 {
	return median(each(a, f)) / median(each(b, f))
}

// noise returns how far two runs of the same side differ, as a fraction: 0.03 is 3 %. The samples of one side are
// split into even and odd rounds; with fewer than two rounds nothing is known and the error is 0.
func noise(rounds []Series, f func(Series) float64) float64 {
	if len(rounds) < 2 {
		return 0
	}
	var even, odd []Series
	for i, r := range rounds {
		if i%2 == 0 {
			even = append(even, r)
		} else {
			odd = append(odd, r)
		}
	}
	r := ratio(even, odd, f)
	if math.IsNaN(r) || r <= 0 {
		return 0
	}
	if r < 1 {
		r = 1 / r
	}
	return r - 1
}
