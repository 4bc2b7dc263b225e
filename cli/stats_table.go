package cli

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/droverhq/drover/cli/ui"
)

// sortStats sorts by what the user asked for, the largest first, and then by name.
func sortStats(views []statsView, by string) {
	slices.SortFunc(views, func(a, b statsView) int {
		order := 0
		switch by {
		case "cpu":
			order = cmp.Compare(number(b.CPUPercent), number(a.CPUPercent))
		case "memory":
			order = cmp.Compare(b.Memory, a.Memory)
		}
		return cmp.Or(order, strings.Compare(a.Name, b.Name), strings.Compare(a.Host, b.Host), strings.Compare(a.key(), b.key()))
	})
}

func number(p *float64) float64 {
	if p == nil {
		return -1
	}
	return *p
}

// statsTable is for people.
func statsTable(views []statsView, hosts bool) *ui.Table {
	t := &ui.Table{
		Header: []string{"CONTAINER", "HOST", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS"},
		Shrink: []int{0, 1}, Drop: []int{6, 7, 5, 1},
	}
	if hosts {
		t.Header = []string{"HOST", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O"}
		t.Shrink, t.Drop = []int{0}, []int{5, 4}
	}
	percent := func(p *float64) ui.Cell {
		switch {
		case p == nil:
			return ui.Cell{Text: "--", Style: ui.Faint}
		case *p >= 90:
			return ui.Cell{Text: fmt.Sprintf("%.1f", *p), Style: ui.Bad}
		case *p >= 50:
			return ui.Cell{Text: fmt.Sprintf("%.1f", *p), Style: ui.Busy}
		}
		return ui.Text(fmt.Sprintf("%.1f", *p))
	}
	pair := func(a, b uint64) ui.Cell { return ui.Text(bytesText(int64(a)) + " / " + bytesText(int64(b))) }
	for _, v := range views {
		name := cmp.Or(v.Name, ui.Short(v.ContainerID))
		if v.Error != "" {
			t.Row(ui.Cell{Text: name, Style: ui.Strong}, ui.Text(v.Host), ui.Cell{Text: "--", Style: ui.Faint},
				ui.Cell{Text: shorten(v.Error, 40), Style: ui.Bad}, ui.Text(""), ui.Text(""), ui.Text(""), ui.Text(""))
			continue
		}
		memory := ui.Text(bytesText(int64(v.Memory)))
		if v.MemoryLimit > 0 {
			memory = pair(v.Memory, v.MemoryLimit)
		}
		net, block := pair(v.NetReceived, v.NetSent), pair(v.BlockRead, v.BlockWritten)
		if hosts {
			t.Row(ui.Cell{Text: v.Host, Style: ui.Strong}, percent(v.CPUPercent), memory, percent(v.MemoryPercent), net, block)
			continue
		}
		t.Row(ui.Cell{Text: name, Style: ui.Strong}, ui.Text(v.Host), percent(v.CPUPercent), memory, percent(v.MemoryPercent), net, block,
			ui.Text(strconv.FormatUint(v.Processes, 10)))
	}
	return t
}
