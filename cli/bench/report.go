package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
)

// A Row is one measured figure and what it was asked to be.
type Row struct {
	Case   string  `json:"case"`
	Value  float64 `json:"value"`
	Unit   string  `json:"unit"`
	Target string  `json:"target,omitempty"`
	// Limit is the number in Target; AtLeast tells its direction. Without a target both are zero.
	Limit   float64 `json:"limit,omitempty"`
	AtLeast bool    `json:"atLeast,omitempty"`
	// Noise is the A/A error of this row as a fraction.
	Noise  float64 `json:"noise"`
	Detail string  `json:"detail,omitempty"`
}

// Verdict is "pass", "near" (missed by less than the A/A error), "miss", or "" where there is no target.
func (r Row) Verdict() string {
	if r.Target == "" {
		return ""
	}
	ok := r.Value <= r.Limit
	near := r.Value <= r.Limit*(1+r.Noise)
	if r.AtLeast {
		ok = r.Value >= r.Limit
		near = r.Value*(1+r.Noise) >= r.Limit
	}
	switch {
	case ok:
		return "pass"
	case near:
		return "near"
	default:
		return "miss"
	}
}

// A Report is the outcome of one suite.
type Report struct {
	Suite   string `json:"suite"`
	Machine string `json:"machine"`
	Engine  string `json:"engine,omitempty"`
	Rounds  int    `json:"rounds"`
	Rows    []Row  `json:"rows"`
}

func (r *Report) atMost(name string, value float64, unit string, limit, noise float64, detail string) {
	r.Rows = append(r.Rows, Row{
		Case: name, Value: value, Unit: unit, Noise: noise, Detail: detail,
		Target: fmt.Sprintf("≤ %g", limit), Limit: limit,
	})
}

func (r *Report) atLeast(name string, value float64, unit string, limit, noise float64, detail string) {
	r.Rows = append(r.Rows, Row{
		Case: name, Value: value, Unit: unit, Noise: noise, Detail: detail,
		Target: fmt.Sprintf("≥ %g", limit), Limit: limit, AtLeast: true,
	})
}

func (r *Report) note(name string, value float64, unit, detail string) {
	r.Rows = append(r.Rows, Row{Case: name, Value: value, Unit: unit, Detail: detail})
}

// Missed returns the rows whose target was missed by more than the A/A error.
func (r *Report) Missed() []Row {
	var out []Row
	for _, row := range r.Rows {
		if row.Verdict() == "miss" {
			out = append(out, row)
		}
	}
	return out
}

// WriteTable writes the report for people.
func (r *Report) WriteTable(w io.Writer) error {
	if _, err := fmt.Fprintf(w, "%s on %s, %s, %d rounds\n\n", r.Suite, r.Machine, r.Engine, r.Rounds); err != nil {
		return err
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "CASE\tVALUE\tTARGET\tVERDICT\tA/A\tDETAIL")
	for _, row := range r.Rows {
		aa := ""
		if row.Noise > 0 {
			aa = fmt.Sprintf("±%.0f%%", row.Noise*100)
		}
		fmt.Fprintf(tw, "%s\t%s %s\t%s\t%s\t%s\t%s\n", row.Case, number(row.Value), row.Unit, row.Target, row.Verdict(), aa, row.Detail)
	}
	return tw.Flush()
}

// WriteJSON writes the report for programs.
func (r *Report) WriteJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}

// number prints three significant figures, and whole numbers from a thousand on.
func number(v float64) string {
	if v >= 1000 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}
